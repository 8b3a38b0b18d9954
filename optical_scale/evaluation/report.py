"""Write a report for programs (``report.json``), for the browser (``report.html``) and for the terminal."""

from pathlib import Path

from pydantic import ValidationError

from optical_scale.errors import EvaluationError
from optical_scale.evaluation.page import html_page
from optical_scale.evaluation.schema import (
    Report,
    Task,
    group_mean,
    languages_of,
    metrics_of,
    results_of,
    task_title,
    whole_tasks,
)
from optical_scale.runtime.files import write_atomic, write_json


def write_report(folder: Path, report: Report) -> None:
    """Write ``report.json`` and ``report.html`` into ``folder``, each whole or not at all; call on one rank only.

    The same report gives the same bytes. Existing files of these names are replaced.
    """
    page = html_page(report)
    write_json(folder / "report.json", report.model_dump(mode="json"))
    write_atomic(folder / "report.html", page)


def read_report(path: Path) -> Report:
    """Read and check a ``report.json``.

    Raises:
        EvaluationError: no such file, or its content is not a report of this version; the message names the field.
    """
    try:
        return Report.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise EvaluationError(f"{path}: no such file; a finished evaluation writes report.json there") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "(top level)"
        raise EvaluationError(
            f"{path}: {error.error_count()} fields do not match report schema version 1, the first is {field}: "
            f"{first['msg']}; write the report again with this version of optical_scale"
        ) from error


def terminal_table(report: Report) -> str:
    """One monospaced table per task: languages down, metrics under each stage across; group means, gaps and chance."""
    return "\n\n".join(_table(report, task) for task in whole_tasks(report)) + "\n"


def _table(report: Report, task: Task) -> str:
    metrics, stages = metrics_of(report, task), [results_of(stage, task) for stage in report.stages]
    languages = languages_of(report, task)
    head = ["language", "queries", *metrics * (len(stages) + 1)]
    rows: list[list[str]] = []
    for language in languages:
        known = next(results[language] for results in stages if language in results)
        values = [results[language].metrics if language in results else {} for results in stages]
        numbers = [_number(row.get(metric)) for row in (*values, known.chance) for metric in metrics]
        rows.append([language, str(known.queries), *numbers])
    means: list[list[str]] = []
    groups = [("all", tuple(languages))]
    if report.groups is not None:
        groups += [("high", report.groups.high), ("low", report.groups.low)]
    for name, group in groups:
        numbers = [_number(group_mean(results, group, metric)) for results in stages for metric in metrics]
        means.append([f"mean {name}", "", *numbers, *[""] * len(metrics)])
    widths = [max(len(row[i]) for row in (head, *rows, *means)) for i in range(len(head))]
    banner = _banner([*(stage.name for stage in report.stages), "chance"], widths, len(metrics))
    rule = "-" * len(banner)
    lines = [task_title(task), banner, _line(head, widths, len(metrics)), rule]
    lines += [_line(row, widths, len(metrics)) for row in rows]
    lines += [rule, *(_line(row, widths, len(metrics)) for row in means)]
    lines += _gap_lines(report, task)
    return "\n".join(line.rstrip() for line in lines)


def _gap_lines(report: Report, task: Task) -> list[str]:
    lines = []
    for gap in report.gaps:
        if (gap.evaluation, gap.direction, gap.mode) == task:
            relative = "" if gap.relative_gap is None else f", {gap.relative_gap:.1%} of high"
            lines.append(
                f"gap {gap.metric} {gap.stage}: {gap.high_mean:.3f} - {gap.low_mean:.3f} = {gap.gap:.3f} "
                f"[{gap.interval[0]:.3f}, {gap.interval[1]:.3f}]{relative}"
            )
    return lines


def _line(cells: list[str], widths: list[int], metrics: int) -> str:
    """Cells in columns, the first to the left; a bar before every stage's metrics."""
    text = cells[0].ljust(widths[0])
    for i in range(1, len(cells)):
        text += (" | " if i >= 2 and (i - 2) % metrics == 0 else "  ") + cells[i].rjust(widths[i])
    return text


def _banner(names: list[str], widths: list[int], metrics: int) -> str:
    """Stage names centred over their metrics, cut where they are wider."""
    text = " " * (widths[0] + 2 + widths[1])
    for i, name in enumerate(names):
        columns = widths[2 + i * metrics : 2 + (i + 1) * metrics]
        room = sum(columns) + 2 * (metrics - 1)
        text += " | " + name[:room].center(room)
    return text


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
