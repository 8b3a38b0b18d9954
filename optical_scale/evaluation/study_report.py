"""Write the report of a study: ``results.json``, ``results.csv``, ``cells.csv``, ``report.md`` and ``report.html``."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from optical_scale.evaluation.schema import title_of
from optical_scale.evaluation.study_page import study_page
from optical_scale.evaluation.study_schema import (
    SideBySide,
    Spread,
    StudyReport,
    Summary,
    mean_text,
    missing_text,
    ordered_languages,
    side_by_side,
    spread_text,
    statistic_name,
)
from optical_scale.runtime.files import write_atomic, write_json


def write_study(folder: Path, report: StudyReport) -> None:
    """Write all files, each whole or not at all; the same report gives the same bytes."""
    page = study_page(report)
    write_json(folder / "results.json", report.model_dump(mode="json"))
    write_atomic(folder / "results.csv", _csv(_summary_rows(report)))
    write_atomic(folder / "cells.csv", _csv(_cell_rows(report)))
    write_atomic(folder / "report.md", markdown(report))
    write_atomic(folder / "report.html", page)


def _csv(rows: Iterator[Sequence[object]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerows(["" if cell is None else cell for cell in row] for row in rows)
    return buffer.getvalue()


def _summary_rows(report: StudyReport) -> Iterator[Sequence[object]]:
    """One row per setting, task, metric, and language or statistic."""
    axes = [name for name in report.axes if name != report.replicates]
    yield (
        *axes, "evaluation", "direction", "mode", "metric", "what", "name", "mean", "deviation", "low", "high",
        "replicates", "queries", "training_pairs", "parameters",
    )  # fmt: skip
    for row in report.summaries:
        start = (*(row.labels[name] for name in axes), *row.task, row.metric)
        for language, spread in row.languages.items():
            seen = row.training_pairs.get(language)
            end = (row.replicates, row.queries[language], seen, row.parameters)
            yield (*start, "language", language, *_numbers(spread), *end)
        for name, spread in row.statistics.items():
            yield (*start, "statistic", name, *_numbers(spread), row.replicates, None, None, row.parameters)


def _numbers(spread: Spread) -> tuple[object, ...]:
    return (spread.mean, spread.deviation, *(spread.interval or (None, None)))


def _cell_rows(report: StudyReport) -> Iterator[Sequence[object]]:
    """One row per run, task, language and metric."""
    yield (
        "cell", *report.axes, "evaluation", "direction", "mode", "language", "metric", "value", "training_pairs",
        "parameters", "seconds",
    )  # fmt: skip
    for cell in report.cells:
        for task, languages in cell.metrics.items():
            for language, metrics in languages.items():
                for metric, value in metrics.items():
                    labels = (cell.labels[name] for name in report.axes)
                    seen = cell.training_pairs.get(language)
                    yield (
                        cell.name, *labels, *task.split("/"), language, metric, value, seen, cell.parameters,
                        cell.seconds,
                    )  # fmt: skip


def markdown(report: StudyReport) -> str:
    """A table per task: settings down, languages, group means and gaps across; mean ± deviation over replicates.

    Before it, where the study names its ``corpora``, means over languages with the corpora across.
    """
    parts = [f"# {report.title}"]
    if report.missing:
        parts.append(f"Not done: {missing_text(report)}.")
    tasks = list(dict.fromkeys(row.task for row in report.summaries if row.metric == report.metric))
    for task in tasks:
        rows = [row for row in report.summaries if row.task == task and row.metric == report.metric]
        parts.append(f"## {report.metric}, {title_of(task)}")
        if (means := side_by_side(report, rows)) is not None:
            parts.append(_means(report, means))
        parts.append(_table(report, rows))
    return "\n\n".join(parts) + "\n"


def _means(report: StudyReport, means: SideBySide) -> str:
    lines = [[*means.axes, *means.columns]]
    lines.append([*["---"] * len(means.axes), *["---:"] * len(means.columns)])
    lines += [[*labels, *(mean_text(report, row) for row in rows)] for labels, rows in means.rows]
    return _lines(lines)


def _table(report: StudyReport, rows: Sequence[Summary]) -> str:
    languages = ordered_languages(report, rows)
    statistics = list(dict.fromkeys(name for row in rows for name in row.statistics))
    axes = [name for name in report.axes if name != report.replicates]
    lines = [[*axes, "runs", *languages, *(statistic_name(name) for name in statistics)]]
    lines.append([*["---"] * len(axes), *["---:"] * (len(lines[0]) - len(axes))])
    for row in rows:
        spreads = [row.languages.get(l) for l in languages] + [row.statistics.get(name) for name in statistics]
        lines.append([*row.labels.values(), str(row.replicates), *map(spread_text, spreads)])
    return _lines(lines)


def _lines(lines: Sequence[Sequence[str]]) -> str:
    cells = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
