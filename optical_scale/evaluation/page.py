"""``report.html``: one self-contained page, for screen (light and dark), print and black and white."""

from html import escape

from optical_scale.evaluation.figures import gap_svg, language_bars_svg, learning_curve_svg
from optical_scale.evaluation.result_tables import result_table
from optical_scale.evaluation.schema import (
    Report,
    group_mean,
    headline_metric,
    languages_of,
    metrics_of,
    results_of,
    task_title,
    whole_tasks,
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
    for task in whole_tasks(report):
        parts.append(f"<h3>{escape(task_title(task))}</h3>")
        if bars := language_bars_svg(report, task):
            parts.append(chart(bars))
        parts.append(result_table(report, task))
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
    for task in whole_tasks(report):
        languages = tuple(languages_of(report, task))
        metric = headline_metric(metrics_of(report, task))
        means = [group_mean(results_of(stage, task), languages, metric) for stage in (first, last)]
        if means[1] is None:
            continue
        before = "" if len(report.stages) == 1 or means[0] is None else f"{means[0]:.3f} ({escape(first.name)}) → "
        unit = "language" if len(languages) == 1 else "languages"
        lines.append(
            f"{escape(task_title(task))}: mean {metric} over {len(languages)} {unit} "
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
