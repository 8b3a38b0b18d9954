"""Charts as SVG text: the same bytes for the same numbers, text left to the browser's fonts.

Colours are written as CSS variables, so the page around the chart decides between light and dark. Series differ in
marker, dash or hatching too, and stay apart in black and white.
"""

import io
import re
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

# matplotlib knows no CSS: it draws in these unlikely colours, which are then replaced by variables of the page.
INK, FAINT = "#010203", "#010204"
SERIES = tuple(f"#01020{digit}" for digit in "56789a")
_VARIABLES = {INK: "var(--ink)", FAINT: "var(--line)"} | {c: f"var(--series-{i})" for i, c in enumerate(SERIES)}
HATCHES = ("////", "", "....", "\\\\\\\\", "xxxx", "----")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_DASHES = ("-", "--", "-.", ":")

STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "hatch.linewidth": 0.8,
    "figure.constrained_layout.use": True,
}


def line_style(i: int) -> dict[str, Any]:
    """Colour, marker and dash of series i; the combination repeats only after 24."""
    return {
        "color": SERIES[i % len(SERIES)],
        "marker": _MARKERS[i % len(_MARKERS)],
        "linestyle": _DASHES[i % len(_DASHES)],
        "markersize": 4.5,
        "linewidth": 1.6,
    }


def svg_text(figure: Figure, name: str, description: str) -> str:
    """Serialise for use inside a page: no XML prologue, no date, ids unique to this chart, themed colours."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    text = re.sub(r'<svg (.*?)width="[^"]*"', f'<svg role="img" aria-label="{description}" \\1', text, count=1)
    text = re.sub(r'(<svg [^>]*?)height="[^"]*"', r"\1", text, count=1)
    for color, variable in _VARIABLES.items():
        # In an attribute a variable is not allowed; only ``style`` understands it.
        text = re.sub(rf'(fill|stroke)="{color}"', rf'style="\1: {variable}"', text).replace(color, variable)
    return text
