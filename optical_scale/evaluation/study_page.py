"""``report.html`` of a study: one self-contained page with sortable tables and figures for black and white."""

from collections.abc import Sequence
from html import escape
from itertools import product

from optical_scale.evaluation.schema import title_of
from optical_scale.evaluation.study_figures import fits_svg, pareto_svg
from optical_scale.evaluation.study_schema import (
    Fit,
    ParetoPoint,
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
from optical_scale.pages.document import chart, document, label_cell, number_cell, sortable_table

_SUMMARY_NOTE = """Mean ± standard deviation over replicates; brackets, where shown, are 95 % bootstrap intervals over
replicates and queries together. The mean of a group gives every language the same weight; gap: high minus low; relative
gap: gap divided by the high-resource mean. A number in parentheses: runs, where they are fewer than asked for. Click a
heading to sort. The same numbers: results.csv, results.json; every single run: cells.csv."""
_TEST_NOTE = """Paired randomisation tests over queries, of values averaged over replicates. p (Holm) is corrected for
all comparisons of the same task and statistic on the same queries.
They do not speak of other seeds, languages or collections."""
_SCALE_NOTE = """One point per run. Lines: least squares against log10 of the parameters; hatched: 95 % interval of the
line under independent normal errors."""
_PAIRS_NOTE = "One point per language, averaged over replicates; lines: least squares against log10 of the pairs."
_PARETO_NOTE = "Filled: no other setting is as small and better, or as good and smaller."


def study_page(report: StudyReport) -> str:
    """The whole page."""
    parts = [f"<h1>{escape(report.title)}</h1>", _summary_sentence(report)]
    parts += ["<h2>Results</h2>", f"<p>{_SUMMARY_NOTE}</p>"]
    tasks = list(dict.fromkeys(row.task for row in report.summaries if row.metric == report.metric))
    for task in tasks:
        rows = [row for row in report.summaries if row.task == task and row.metric == report.metric]
        parts += [f"<h3>{escape(report.metric)}, {escape(title_of(task))}</h3>", _means_table(report, rows)]
        parts.append(_summary_table(report, rows))
    labels = report.axes[report.corpora] if report.corpora else ("",)
    for number, (task, label) in enumerate(product(tasks, labels)):
        parts += _figures(report, task, label, number)
    if report.comparisons:
        parts += ["<h2>Differences from baselines</h2>", f"<p>{_TEST_NOTE}</p>", _test_table(report)]
    others = list(dict.fromkeys((row.task, row.metric) for row in report.summaries if row.metric != report.metric))
    if others:
        parts.append("<h2>Other metrics</h2>")
    for task, metric in others:
        rows = [row for row in report.summaries if (row.task, row.metric) == (task, metric)]
        parts.append(
            f"<details><summary>{escape(metric)}, {escape(title_of(task))}</summary>"
            f"{_summary_table(report, rows)}</details>"
        )
    parts += ["<h2>Runs</h2>", _cell_table(report)]
    return document(report.title, parts)


def _summary_sentence(report: StudyReport) -> str:
    text = f"{len(report.cells)} runs"
    if report.high:
        text += f". High-resource: {', '.join(report.high)}. Low-resource: {', '.join(report.low)}"
    if report.missing:
        text += f". Not done: {missing_text(report)}"
    return f"<p>{escape(text)}.</p>"


def _figures(report: StudyReport, task: tuple[str, str, str], label: str, number: int) -> list[str]:
    """Gap against scale, quality against scale, metric against pairs; of one corpus, where the study has several."""
    title, metric = escape(title_of(task) + (f", {label}" if label else "")), report.metric

    def shown(row: Fit | ParetoPoint) -> bool:
        return row.task == task and (report.corpora is None or row.labels.get(report.corpora, label) == label)

    scale = [fit for fit in report.scale_fits if shown(fit)]
    pairs = [fit for fit in report.pairs_fits if shown(fit)]
    front = [point for point in report.pareto if shown(point)]
    parts = []
    if len({x for fit in scale for x in fit.x}) > 1:
        svg = fits_svg(scale, f"scale-{number}", "parameters of the student", f"gap in {metric}", bands=True)
        parts += [f"<h2>Gap against scale: {title}</h2>", f"<p>{_SCALE_NOTE}</p>", chart(svg), _fit_table(scale)]
    if len(front) > 1:
        svg = pareto_svg(front, f"pareto-{number}", f"mean {metric} of all languages")
        parts += [f"<h2>Quality against size: {title}</h2>", f"<p>{_PARETO_NOTE}</p>", chart(svg)]
    if svg := fits_svg(pairs, f"pairs-{number}", "training pairs of the language", metric, bands=False):
        parts += [f"<h2>Quality against training pairs: {title}</h2>", f"<p>{_PAIRS_NOTE}</p>", chart(svg)]
        parts.append(_fit_table(pairs))
    return parts


def _means_table(report: StudyReport, rows: Sequence[Summary]) -> str:
    means = side_by_side(report, rows)
    if means is None:
        return ""
    body = []
    for labels, found in means.rows:
        cells = [label_cell(label) for label in labels]
        for row in found:
            spread = row.statistics.get("all") if row else None
            cells.append(number_cell(spread.mean if spread else None, mean_text(report, row)))
        body.append(cells)
    return sortable_table([*means.axes, *means.columns], body)


def _summary_table(report: StudyReport, rows: Sequence[Summary]) -> str:
    languages = ordered_languages(report, rows)
    statistics = list(dict.fromkeys(name for row in rows for name in row.statistics))
    axes = [name for name in report.axes if name != report.replicates]
    body = []
    for row in rows:
        cells = [*map(label_cell, row.labels.values()), number_cell(row.parameters, f"{row.parameters:,}")]
        cells.append(number_cell(row.replicates, str(row.replicates)))
        cells += [_spread(row.languages.get(language)) for language in languages]
        cells += [_spread(row.statistics.get(name), interval=True) for name in statistics]
        body.append(cells)
    return sortable_table([*axes, "parameters", "runs", *languages, *map(statistic_name, statistics)], body)


def _spread(spread: Spread | None, *, interval: bool = False) -> str:
    if spread is None:
        return "<td>–</td>"
    text = spread_text(spread)
    title = "" if spread.interval is None else "[{:.3f}, {:.3f}]".format(*spread.interval)
    if interval and title:
        text += f"<br><small>{title}</small>"
    return f'<td data-value="{spread.mean!r}" title="{title}">{text}</td>'


def _fit_table(fits: Sequence[Fit]) -> str:
    rows = []
    for fit in fits:
        span = "–" if fit.slope_interval is None else "[{:+.4f}, {:+.4f}]".format(*fit.slope_interval)
        rows.append(
            [
                label_cell(fit.title),
                number_cell(len(fit.x), str(len(fit.x))),
                number_cell(fit.slope, f"{fit.slope:+.4f}" if fit.slope is not None else ""),
                f"<td>{span}</td>",
                number_cell(fit.r_squared, f"{fit.r_squared:.3f}" if fit.r_squared is not None else ""),
            ]
        )
    return sortable_table(["series", "points", "slope per tenfold", "95 % interval", "R²"], rows)


def _test_table(report: StudyReport) -> str:
    rows = [
        [
            label_cell(row.title),
            label_cell(" · ".join(row.baseline.values())),
            f"<td class='text'>{escape(title_of(row.task))}</td>",
            f"<td class='text'>{escape(statistic_name(row.statistic))}</td>",
            number_cell(row.difference, f"{row.difference:+.4f}"),
            number_cell(row.p, f"{row.p:.4f}"),
            number_cell(row.p_holm, f"{row.p_holm:.4f}"),
        ]
        for row in report.comparisons
    ]
    return sortable_table(["setting", "baseline", "task", f"{report.metric} of", "difference", "p", "p (Holm)"], rows)


def _cell_table(report: StudyReport) -> str:
    rows = [
        [
            label_cell(cell.name),
            number_cell(cell.parameters, f"{cell.parameters:,}"),
            number_cell(cell.seconds, f"{cell.seconds:,.0f}"),
        ]
        for cell in report.cells
    ]
    return sortable_table(["run", "parameters", "seconds"], rows)
