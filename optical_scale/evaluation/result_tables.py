"""Tables of results in a report page: a row per language, the metrics of every stage beside chance and baselines."""

from html import escape

from optical_scale.evaluation.schema import (
    Report,
    ReportedResult,
    Task,
    group_mean,
    languages_of,
    metrics_of,
    parts_of,
    results_of,
)


def result_table(report: Report, task: Task) -> str:
    """Languages down, metrics under every stage across; then group means, what was left out, parts of the queries."""
    metrics, stages = metrics_of(report, task), [results_of(stage, task) for stage in report.stages]
    means = ""
    for name, languages in _mean_groups(report, languages_of(report, task)):
        cells = "".join(_cells([group_mean(results, languages, metric) for metric in metrics]) for results in stages)
        means += f"<tr class='mean'><th scope='row'>{escape(name)}</th><td></td><td></td>{cells}"
        means += f"<td class='first' colspan='{(1 + len(_baselines(report, task))) * len(metrics)}'></td></tr>"
    table = _table(report, task, "language", _rows(report, task), means) + _counted(report, task)
    rows = "".join(_rows(report, part, f"{part[0].partition(':')[2]} · ") for part in parts_of(report, task))
    return table + (_table(report, task, "queries of", rows, "") if rows else "")


def _table(report: Report, task: Task, first: str, rows: str, means: str) -> str:
    metrics = metrics_of(report, task)
    blocks = (*(stage.name for stage in report.stages), "chance", *_baselines(report, task))
    columns = "".join(
        f"<th class='stage' colspan='{len(metrics)}' scope='colgroup'>{escape(name)}</th>" for name in blocks
    )
    names = "".join(
        f"<th scope='col' data-column='{i}'>{escape(metric)}</th>"
        for i, metric in enumerate(metrics * len(blocks), start=3)
    )
    return (
        '<div class="scroll"><table class="sortable"><thead><tr>'
        f'<th rowspan="2" scope="col" data-column="0">{first}</th>'
        '<th rowspan="2" data-column="1">queries</th><th rowspan="2" data-column="2">documents</th>'
        f"{columns}</tr><tr>{names}</tr></thead><tbody>{rows}</tbody>"
        f"<tbody>{means}</tbody></table></div>"
    )


def _rows(report: Report, task: Task, prefix: str = "") -> str:
    """A row per language, headed by ``prefix``, its tag and its training pairs."""
    metrics, stages = metrics_of(report, task), [results_of(stage, task) for stage in report.stages]
    body = ""
    for language in languages_of(report, task):
        known = next(results[language] for results in stages if language in results)
        values = [results[language].metrics if language in results else {} for results in stages]
        levels = [known.chance, *(known.baselines.get(baseline, {}) for baseline in _baselines(report, task))]
        cells = "".join(_cells([row.get(metric) for metric in metrics]) for row in (*values, *levels))
        pairs = f" · {report.training_pairs[language]:,}" if language in report.training_pairs else ""
        size = "".join(f"<td data-value='{n}'>{n:,}</td>" for n in (known.queries, known.documents))
        body += f"<tr><th scope='row'>{escape(prefix + language)}{pairs}</th>{size}{cells}</tr>"
    return body


def _results(report: Report, task: Task) -> list[ReportedResult]:
    return [result for stage in report.stages for result in results_of(stage, task).values()]


def _baselines(report: Report, task: Task) -> list[str]:
    return list(dict.fromkeys(name for result in _results(report, task) for name in result.baselines))


def _counted(report: Report, task: Task) -> str:
    """What was left out or treated apart, in one sentence per language."""
    found = {
        result.language: ", ".join(f"{number:,} {reason}" for reason, number in sorted(result.counted.items()))
        for result in _results(report, task)
        if result.counted
    }
    text = ". ".join(f"{language}: {reasons}" for language, reasons in sorted(found.items()))
    return f"<p>{escape(text)}.</p>" if text else ""


def _mean_groups(report: Report, languages: list[str]) -> list[tuple[str, tuple[str, ...]]]:
    groups = [("mean of all", tuple(languages))]
    if report.groups is not None:
        groups += [("mean of high-resource", report.groups.high), ("mean of low-resource", report.groups.low)]
    return groups


def _cells(values: list[float | None]) -> str:
    return "".join(
        f"<td{' class=first' if i == 0 else ''}>{'–' if value is None else f'{value:.3f}'}</td>"
        for i, value in enumerate(values)
    )
