"""The alignment viewer of a report: pick a pair, see its transport plan; without scripts one pair per language."""

import json
from html import escape
from typing import Any

from optical_scale.evaluation.page_script import VIEWER
from optical_scale.evaluation.schema import Alignment, PictureAlignment, Report

_NOTE = """Rows are the teacher's tokens, columns the student's. Each cell is the share of the row's mass that
the transport plan sends to the column, in per cent (shown from 10)."""
_PICTURE_NOTE = """For a caption and its image, choose a word: the picture stays bright where the plan sends the word's
mass, and is dark where it sends none; the brightest patch sets the scale."""


def viewer_section(report: Report) -> list[str]:
    """Heading, explanation and viewer; empty without any alignment."""
    if not report.alignments and not report.pictures:
        return []
    data = [*map(_pair, report.alignments), *map(_picture, report.pictures)]
    # Inside a script element only "<" could end it early.
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    first = {alignment.language: alignment for alignment in reversed(report.alignments)}
    static = "".join(_table(alignment) for alignment in reversed(first.values()))
    note = f"{_NOTE} {_PICTURE_NOTE}" if report.pictures else _NOTE
    return [
        "<h2>Token alignments</h2>",
        f"<p>{note}</p>",
        '<div class="viewer" hidden><p><label>language <select class="language"></select></label>'
        '<label>pair <select class="pair"></select></label></p><div class="shown"></div></div>',
        f'<script type="application/json" id="alignments">{text}</script>',
        f"<script>{VIEWER}</script>",
        f"<noscript>{static}</noscript>",
    ]


def _pair(alignment: Alignment) -> dict[str, Any]:
    return {
        "language": alignment.language,
        "title": " ".join(alignment.source_tokens),
        "rows": alignment.source_tokens,
        "columns": alignment.target_tokens,
        "shares": [_shares(row) for row in alignment.plan],
    }


def _picture(alignment: PictureAlignment) -> dict[str, Any]:
    return {
        "language": alignment.language,
        "title": f"image: {' '.join(alignment.tokens)}",
        "rows": alignment.tokens,
        "picture": alignment.picture,
        "height": alignment.rows,
        "width": alignment.columns,
        "shares": [_shares(row) for row in alignment.plan],
    }


def _shares(row: tuple[float, ...]) -> list[float]:
    """Masses as per cent of their sum."""
    total = sum(row) or 1.0
    return [round(100 * mass / total, 1) for mass in row]


def _table(alignment: Alignment) -> str:
    """A heat map as a table, so that the browser's fonts and shaping draw every script."""
    head = "".join(
        f"<th scope='col' lang='{escape(alignment.language)}' dir='auto'>{escape(token)}</th>"
        for token in alignment.target_tokens
    )
    body = ""
    for source, row in zip(alignment.source_tokens, alignment.plan, strict=True):
        total = sum(row) or 1.0
        cells = ""
        for target, mass in zip(alignment.target_tokens, row, strict=True):
            share = 100 * mass / total
            strong = " class='strong'" if share >= 55 else ""
            number = f"{share:.0f}" if share >= 10 else ""
            title = escape(f"{source} → {target}: {share:.1f} %", quote=True)
            cells += f'<td{strong} style="--share:{share:.1f}" title="{title}">{number}</td>'
        body += f"<tr><th scope='row'>{escape(source)}</th>{cells}</tr>"
    return (
        f'<figure><h3>English → {escape(alignment.language)}</h3><div class="scroll"><table class="plan">'
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table></div></figure>"
    )
