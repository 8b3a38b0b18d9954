"""``report.html``: one self-contained page, for screen (light and dark), print and black and white."""

from html import escape

from optical_scale.evaluation.figures import gap_svg, language_bars_svg, learning_curve_svg
from optical_scale.evaluation.schema import (
    Report,
    Task,
    group_mean,
    languages_of,
    metrics_of,
    results_of,
    task_title,
    tasks,
)
from optical_scale.evaluation.viewer import viewer_section
from optical_scale.pages.document import chart, document, pairs_table

_STYLE = """
table.gaps :is(th, td):nth-child(2) { text-align: left; }
.viewer label { margin-right: 1rem; font-size: .92rem; } .viewer select { max-width: 40rem; font: inherit; }
.viewer .picture { position: relative; display: inline-block; line-height: 0; margin: .5rem 1rem .5rem 0; }
.viewer .picture img { width: 24rem; max-width: 100%; }
.viewer .patches { position: absolute; inset: 0; display: grid; } .viewer .patches div { background: #000; }
.viewer .words button { font: inherit; margin: .15rem; padding: .15rem .5rem; border: 1px solid var(--line);
  border-radius: 4px; background: var(--card); color: var(--ink); cursor: pointer; }
.viewer .words button[aria-pressed="true"] { background: var(--ink); color: var(--paper); }
.plan th, .plan td { border: 0; padding: .25rem .4rem; text-align: center; font-size: .85rem; font-weight: 500; }
.plan tbody th { text-align: right; position: sticky; left: 0; background: var(--paper); }
.plan tbody td { min-width: 2.6rem; outline: 1px solid var(--line); outline-offset: -1px; print-color-adjust: exact;
  -webkit-print-color-adjust: exact; background: color-mix(in srgb, var(--heat) calc(var(--share) * 1%), transparent); }
.plan td.strong { color: var(--paper); font-weight: 650; }
"""

_GAP_NOTE = """The mean of a group gives every language the same weight; the gap is the difference of both means.
Brackets: bootstrap interval over queries. Relative gap: gap divided by the high-resource mean."""
_RESULTS_NOTE = """Languages with more training pairs come first (number after the dot). Upright ticks mark what a
random order would score; thin lines are 95 % bootstrap intervals over queries. R@k counts a query when any relevant
item is among the first k."""


def html_page(report: Report) -> str:
    """The whole page."""
    parts = [f"<h1>{escape(report.title)}</h1>", _summary(report), *_gap_section(report)]
    if curve := learning_curve_svg(report):
        parts += ["<h2>Learning curve</h2>", chart(curve)]
    parts += ["<h2>Results by language</h2>", f"<p>{_RESULTS_NOTE}</p>"]
    for task in tasks(report):
        parts.append(f"<h3>{escape(task_title(task))}</h3>")
        if bars := language_bars_svg(report, task):
            parts.append(chart(bars))
        parts.append(_result_table(report, task))
    parts += viewer_section(report)
    if report.timings:
        rows = [(name, f"{seconds:,.1f} s") for name, seconds in report.timings.items()]
        parts += ["<h2>Time</h2>", pairs_table(rows)]
    if report.config:
        rows = [(name, str(value)) for name, value in report.config.items()]
        parts += ["<h2>Configuration</h2>", pairs_table(rows)]
    return document(report.title, parts, _STYLE)


def _gap_section(report: Report) -> list[str]:
    gap = gap_svg(report)
    if not gap:
        return []
    groups = f"High-resource: {_names(report, 'high')}. Low-resource: {_names(report, 'low')}."
    return [
        "<h2>Gap between high- and low-resource languages</h2>",
        f"<p>{groups} {_GAP_NOTE}</p>",
        chart(gap),
        _gap_table(report),
    ]


def _summary(report: Report) -> str:
    """Before and after in one sentence per task, from the mean over all languages."""
    lines = []
    first, last = report.stages[0], report.stages[-1]
    for task in tasks(report):
        languages = tuple(languages_of(report, task))
        means = [group_mean(results_of(stage, task), languages, "MRR") for stage in (first, last)]
        if means[1] is None:
            continue
        before = "" if len(report.stages) == 1 or means[0] is None else f"{means[0]:.3f} ({escape(first.name)}) → "
        unit = "language" if len(languages) == 1 else "languages"
        lines.append(
            f"{escape(task_title(task))}: mean MRR over {len(languages)} {unit} "
            f"{before}<strong>{means[1]:.3f}</strong> ({escape(last.name)})."
        )
    return "<p>" + "<br>".join(lines) + "</p>"


def _names(report: Report, which: str) -> str:
    return escape(", ".join(getattr(report.groups, which))) if report.groups else "not recorded"


def _gap_table(report: Report) -> str:
    head = "".join(
        f"<th scope='col' data-column='{i}'>{name}</th>"
        for i, name in enumerate(
            ("stage", "task", "metric", "high", "low", "gap", "interval", "relative gap", "interval")
        )
    )
    body = ""
    for gap in report.gaps:
        relative = "–" if gap.relative_gap is None else f"{gap.relative_gap:.1%}"
        spread = "–" if gap.relative_interval is None else "[{:.1%}, {:.1%}]".format(*gap.relative_interval)
        cells = (
            escape(task_title((gap.evaluation, gap.direction, gap.mode))),
            escape(gap.metric),
            f"{gap.high_mean:.3f}",
            f"{gap.low_mean:.3f}",
            f"{gap.gap:.3f}",
            "[{:.3f}, {:.3f}]".format(*gap.interval),
            relative,
            spread,
        )
        body += f"<tr><th scope='row'>{escape(gap.stage)}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
    return (
        f'<div class="scroll"><table class="gaps sortable"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _result_table(report: Report, task: Task) -> str:
    """Languages down, metrics under every stage across, chance last; then group means."""
    metrics, stages = metrics_of(report, task), [results_of(stage, task) for stage in report.stages]
    columns = "".join(
        f"<th class='stage' colspan='{len(metrics)}' scope='colgroup'>{escape(name)}</th>"
        for name in (*(stage.name for stage in report.stages), "chance")
    )
    names = "".join(
        f"<th scope='col' data-column='{i}'>{escape(metric)}</th>"
        for i, metric in enumerate(metrics * (len(stages) + 1), start=3)
    )
    body = ""
    for language in languages_of(report, task):
        known = next(results[language] for results in stages if language in results)
        values = [results[language].metrics if language in results else {} for results in stages]
        cells = "".join(_cells([row.get(metric) for metric in metrics]) for row in (*values, known.chance))
        pairs = f" · {report.training_pairs[language]:,}" if language in report.training_pairs else ""
        size = "".join(f"<td data-value='{n}'>{n:,}</td>" for n in (known.queries, known.documents))
        body += f"<tr><th scope='row'>{escape(language)}{pairs}</th>{size}{cells}</tr>"
    means = ""
    for name, languages in _mean_groups(report, languages_of(report, task)):
        cells = "".join(_cells([group_mean(results, languages, metric) for metric in metrics]) for results in stages)
        means += f"<tr class='mean'><th scope='row'>{escape(name)}</th><td></td><td></td>{cells}"
        means += f"<td class='first' colspan='{len(metrics)}'></td></tr>"
    return (
        '<div class="scroll"><table class="sortable"><thead><tr>'
        '<th rowspan="2" scope="col" data-column="0">language</th>'
        '<th rowspan="2" data-column="1">queries</th><th rowspan="2" data-column="2">documents</th>'
        f"{columns}</tr><tr>{names}</tr></thead><tbody>{body}</tbody>"
        f"<tbody>{means}</tbody></table></div>"
    )


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
