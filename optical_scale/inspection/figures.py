"""Charts of an inspection as SVG text; sides and tokenizers differ in dash and hatching, so colour is not needed."""

from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from optical_scale.inspection.schema import EDGES, UNREADABLE, Inspection, Spread, Texts, Tokens
from optical_scale.pages.drawing import FAINT, HATCHES, INK, SERIES, STYLE, svg_text

_COLUMNS = 3
_SIDES = {
    "english": ("--", SERIES[0]),
    "target": ("-", SERIES[1]),
    "caption": ("-", SERIES[1]),
    "negative": (":", SERIES[2]),
}
_BAR = 0.2


def lengths_svg(texts: Sequence[Texts], name: str, what: str, spread: Callable[[Texts], Spread | None]) -> str:
    """A panel per language with the histogram of each side, over a logarithmic axis; empty without any text.

    Args:
        texts: statistics by language and side.
        name: unique on the page.
        what: is counted.
        spread: picks the distribution; None leaves a side out.
    """
    found = [(row, values) for row in texts if (values := spread(row)) is not None]
    languages = list(dict.fromkeys(row.language for row, _ in found))
    if not languages:
        return ""
    end = max(_last(values) for _, values in found)
    start = min(_first(values) for _, values in found)
    rows = -(-len(languages) // _COLUMNS)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 0.6 + 1.5 * rows))
        axes = figure.subplots(rows, _COLUMNS, sharex=True, sharey=True, squeeze=False).flatten().tolist()
        for axis, language in zip(axes, languages, strict=False):
            for row, values in found:
                if row.language == language:
                    _steps(axis, values, start, end, row.side)
            axis.set_title(language)
        for axis in axes[len(languages) :]:
            axis.set_visible(False)
        _finish(axes[0])
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=3)
        figure.supxlabel(what, fontsize=10, color=INK)
        return svg_text(figure, name, f"Histograms of {what} by language")


def _first(values: Spread) -> int:
    return next(i for i, count in enumerate(values.counts) if count)


def _last(values: Spread) -> int:
    return max(i for i, count in enumerate(values.counts) if count) + 1


def _steps(axis: Axes, values: Spread, start: int, end: int, side: str) -> None:
    """Shares of the classes; each is as wide as the next, zero included."""
    total = sum(values.counts)
    dash, color = _SIDES[side]
    heights = [count / total for count in values.counts[start:end]]
    axis.stairs(heights, range(start, end + 1), color=color, linestyle=dash, linewidth=1.5, label=side)


def _finish(axis: Axes) -> None:
    """Powers of two at the shared axes, not too many."""
    low, high = (round(bound) for bound in axis.get_xlim())
    powers = [place for place, edge in enumerate(EDGES) if edge & (edge - 1) == 0 and low <= place <= high]
    places = powers[:: -(-len(powers) // 5)]
    axis.set_xticks(places, [_short(EDGES[place]) for place in places])
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_ylim(bottom=0)


def _short(value: int) -> str:
    return f"{value:g}" if value < 1000 else f"{value / 1024:g}k"


def tokens_svg(report: Inspection) -> str:
    """Bars by language: tokens per word, and tokens for each English one; empty without a tokenizer or target."""
    rows = [row for row in report.texts if row.side in ("target", "caption")]
    panels: list[tuple[str, Callable[[Tokens], float | None]]] = [("tokens per word", lambda tokens: tokens.per_word)]
    if any(row.side == "target" for row in rows):
        panels.append(("tokens for each English one", lambda tokens: tokens.premium))
    if not report.tokenizers or not rows:
        return ""
    rows = sorted(rows, key=lambda row: -max(tokens.characters_per_token or 0.0 for tokens in row.tokens))
    with mpl.rc_context(STYLE):
        height = 1.2 + len(rows) * (_BAR * len(report.tokenizers) + 0.14)
        figure = Figure(figsize=(8, height))
        axes = list(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0])
        for axis, (title, value) in zip(axes, panels, strict=True):
            _bars(axis, rows, value)
            axis.axvline(1, color=INK, linewidth=0.8, linestyle=":")
            axis.set_title(title)
            axis.grid(axis="x")
            axis.margins(x=0.15)
            axis.tick_params(axis="y", length=0)
        axes[0].set_yticks(range(len(rows)), [row.language for row in rows])
        axes[0].set_ylim(len(rows) - 0.5, -0.5)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
        return svg_text(figure, "tokens", "Tokens by language")


def _bars(axis: Axes, rows: Sequence[Texts], value: Callable[[Tokens], float | None]) -> None:
    number = len(rows[0].tokens)
    thickness = 0.8 / number
    for i in range(number):
        middles = [row - 0.4 + thickness * (i + 0.5) for row in range(len(rows))]
        style: dict[str, Any] = {"color": "none", "hatch": HATCHES[i % len(HATCHES)]} if number > 1 else {}
        color = SERIES[(i + 1) % len(SERIES)]
        widths = [value(row.tokens[i]) for row in rows]
        axis.barh(
            middles,
            [width or 0.0 for width in widths],
            thickness * 0.9,
            **({"color": color} | style),
            edgecolor=color,
            label=rows[0].tokens[i].tokenizer,
        )
        for row, middle, width in zip(rows, middles, widths, strict=True):
            text = "–" if width is None else f"{width:.2f}"
            if row.tokens[i].unknown > UNREADABLE:
                text += f" ({row.tokens[i].unknown:.0%} unknown)"
            axis.annotate(text, (width or 0.0, middle), (3, 0), textcoords="offset points", va="center", fontsize=8)


def sizes_svg(report: Inspection) -> str:
    """Widths and heights of images over a logarithmic axis; empty for bitext."""
    images = report.images
    if images is None:
        return ""
    both = {"width": ("-", SERIES[1], images.width), "height": ("--", SERIES[2], images.height)}
    start, end = (
        pick(where(values) for _, _, values in both.values()) for pick, where in ((min, _first), (max, _last))
    )
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 2.2))
        axis = figure.subplots()
        for name, (dash, color, values) in both.items():
            heights = [count / images.read for count in values.counts[start:end]]
            axis.stairs(heights, range(start, end + 1), color=color, linestyle=dash, linewidth=1.5, label=name)
        _finish(axis)
        axis.grid(axis="y", color=FAINT)
        axis.set_xlabel("pixels")
        axis.legend(loc="upper left")
        return svg_text(figure, "sizes", "Sizes of images in pixels")
