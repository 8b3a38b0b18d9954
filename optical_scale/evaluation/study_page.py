"""``report.html`` of a study: one self-contained page with sortable tables and figures for black and white."""

from collections.abc import Sequence
from html import escape

from optical_scale.evaluation.page import document
from optical_scale.evaluation.schema import title_of
from optical_scale.evaluation.study_schema import Spread, StudyReport, Summary


def study_page(report: StudyReport) -> str:
    """The whole page."""
    parts = [f"<h1>{escape(report.title)}</h1>"]
    if report.missing:
        parts.append(f"<p>Not done: {escape(', '.join(report.missing))}.</p>")
    for key in dict.fromkeys((row.task, row.metric) for row in report.summaries):
        rows = [row for row in report.summaries if (row.task, row.metric) == key]
        parts += [f"<h3>{escape(key[1])}, {escape(title_of(key[0]))}</h3>", _summary_table(report, rows)]
    return document(report.title, parts)


def _summary_table(report: StudyReport, rows: Sequence[Summary]) -> str:
    languages = list(dict.fromkeys(language for row in rows for language in row.languages))
    statistics = list(dict.fromkeys(name for row in rows for name in row.statistics))
    axes = [name for name in report.axes if name != report.replicates]
    head = "".join(f"<th scope='col'>{escape(n)}</th>" for n in (*axes, "runs", *languages, *statistics))
    body = ""
    for row in rows:
        spreads = [row.languages.get(l) for l in languages] + [row.statistics.get(name) for name in statistics]
        labels = "".join(f"<th scope='row'>{escape(label)}</th>" for label in row.labels.values())
        body += f"<tr>{labels}<td>{row.replicates}</td>{''.join(map(_cell, spreads))}</tr>"
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(spread: Spread | None) -> str:
    if spread is None:
        return "<td>–</td>"
    deviation = "" if spread.deviation is None else f" ± {spread.deviation:.3f}"
    return f'<td data-value="{spread.mean}">{spread.mean:.3f}{deviation}</td>'
