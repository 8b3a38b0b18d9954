"""``report.html``: one self-contained page, for screen (light and dark), print and black and white."""

from collections.abc import Sequence
from html import escape

from optical_scale.evaluation.figures import gap_svg, language_bars_svg, learning_curve_svg
from optical_scale.evaluation.page_script import SORTING
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

_CSS = """
:root { color-scheme: light dark; --paper: #fdfdfc; --card: #ffffff; --ink: #1b1f24; --soft: #5b6470; --line: #d5d9de;
  --heat: #14508c; --series-0: #7a8490; --series-1: #1f6fb2; --series-2: #c8641b; --series-3: #2b8a5b;
  --series-4: #8a4fa8; --series-5: #a8873a; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171b; --card: #1b1f25; --ink: #e8eaed; --soft: #a2abb6;
  --line: #3a414a; --heat: #7db8f0; --series-0: #9aa4b0; --series-1: #6db1ef; --series-2: #f0a064; --series-3: #6fcb9b;
  --series-4: #c79be0; --series-5: #d9bd73; } }
@media print { :root { --paper: #fff; --card: #fff; --ink: #000; --soft: #444; --line: #bbb; }
  .chart, .scroll { break-inside: avoid; overflow: visible; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); line-height: 1.5;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Helvetica Neue", sans-serif; }
main { max-width: 64rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0 0 .5rem; letter-spacing: -.01em; }
h2 { font-size: 1.2rem; margin: 2.75rem 0 .5rem; } h3 { font-size: 1rem; margin: 1.75rem 0 .4rem; }
p, figcaption { color: var(--soft); margin: .25rem 0 .75rem; max-width: 46rem; font-size: .92rem; }
.scroll { overflow-x: auto; margin: .5rem 0 1rem; }
.chart { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .75rem;
  margin: .5rem 0 1rem; overflow-x: auto; }
.chart svg { display: block; width: 100%; min-width: 36rem; height: auto; }
.chart svg text { font-family: inherit !important; }
figure { margin: 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .3rem .5rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
thead th { font-weight: 600; } tbody th, thead th:first-child { text-align: left; } tbody th { font-weight: 500; }
th.stage { text-align: center; border-left: 1px solid var(--line); } td.first { border-left: 1px solid var(--line); }
table.gaps :is(th, td):nth-child(2), td.text { text-align: left; }
th button { all: unset; cursor: pointer; } th button:focus-visible { outline: 2px solid var(--heat); }
th[aria-sort="ascending"] button::after { content: " ▲"; } th[aria-sort="descending"] button::after { content: " ▼"; }
.viewer label { margin-right: 1rem; font-size: .92rem; } .viewer select { max-width: 40rem; font: inherit; }
.viewer .picture { position: relative; display: inline-block; line-height: 0; margin: .5rem 1rem .5rem 0; }
.viewer .picture img { width: 24rem; max-width: 100%; }
.viewer .patches { position: absolute; inset: 0; display: grid; } .viewer .patches div { background: #000; }
.viewer .words button { font: inherit; margin: .15rem; padding: .15rem .5rem; border: 1px solid var(--line);
  border-radius: 4px; background: var(--card); color: var(--ink); cursor: pointer; }
.viewer .words button[aria-pressed="true"] { background: var(--ink); color: var(--paper); }
summary { cursor: pointer; margin: .4rem 0; } small { color: var(--soft); }
tr.mean > * { font-weight: 650; } tr.mean:first-child > * { border-top: 2px solid var(--ink); }
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
        parts += ["<h2>Time</h2>", _pairs_table(rows)]
    if report.config:
        rows = [(name, str(value)) for name, value in report.config.items()]
        parts += ["<h2>Configuration</h2>", _pairs_table(rows)]
    return document(report.title, parts)


def document(title: str, parts: Sequence[str]) -> str:
    """A page around its parts, with everything it needs inside."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(parts)
        + f"\n</main>\n<script>{SORTING}</script>\n</body>\n</html>\n"
    )


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


def chart(svg: str) -> str:
    """A figure around a drawing."""
    return f'<figure class="chart">{svg}</figure>'


def _pairs_table(rows: list[tuple[str, str]]) -> str:
    body = "".join(f"<tr><th scope='row'>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows)
    return f'<div class="scroll"><table><tbody>{body}</tbody></table></div>'


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
