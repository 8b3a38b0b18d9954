"""Charts of a study as SVG text; series differ in marker and dash, bands in hatching, and stay apart without colour."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from optical_scale.evaluation.statistics import fit_line
from optical_scale.evaluation.study_schema import Fit, ParetoPoint
from optical_scale.pages.drawing import FAINT, INK, STYLE, line_style, svg_text

_BAND_HATCHES = ("///", "\\\\\\", "|||", "---", "...", "xxx")


def fits_svg(fits: Sequence[Fit], name: str, x_label: str, y_label: str, *, bands: bool) -> str:
    """Points per fit over a logarithmic axis, with the line; the empty string without any point.

    Args:
        fits: one series each; their x is log10 of what the axis shows.
        name: unique on the page.
        x_label: of the axis.
        y_label: of the axis.
        bands: also draw the 95 % interval of the mean response.
    """
    drawn = [fit for fit in fits if fit.x]
    if not drawn:
        return ""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 4.2))
        axis = figure.subplots()
        for i, fit in enumerate(drawn):
            style = line_style(i)
            x, y = np.array(fit.x), np.array(fit.y)
            axis.plot(10**x, y, **style | {"linestyle": "none", "label": None if fit.slope is not None else fit.title})
            line = fit_line(x, y)
            if line is None:
                continue
            steps = np.linspace(x.min(), x.max(), 50)
            middle, half = line.at(steps)
            ends = {"label": f"{fit.title}: {_slope(fit)}", "markevery": [0, len(steps) - 1]}
            axis.plot(10**steps, middle, **style | ends)
            if bands:
                hatch: dict[str, Any] = {
                    "hatch": _BAND_HATCHES[i % len(_BAND_HATCHES)],
                    "facecolor": "none",
                    "linewidth": 0.0,
                }
                axis.fill_between(10**steps, middle - half, middle + half, edgecolor=FAINT, **hatch)
        axis.set_xscale("log")
        _finish(figure, axis, x_label, y_label)
        return svg_text(figure, name, f"{y_label} against {x_label}")


def _slope(fit: Fit) -> str:
    assert fit.slope is not None
    assert fit.slope_interval is not None
    return f"{fit.slope:+.3f} [{fit.slope_interval[0]:+.3f}, {fit.slope_interval[1]:+.3f}] per tenfold"


def pareto_svg(points: Sequence[ParetoPoint], name: str, y_label: str) -> str:
    """Quality against parameters; filled markers and the stair are the front. Empty without points."""
    if not points:
        return ""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 4.2))
        axis = figure.subplots()
        front = sorted((p for p in points if p.on_front), key=lambda point: (point.parameters, point.quality))
        stair = ([p.parameters for p in front], [p.quality for p in front])
        axis.step(*stair, where="post", color=INK, linewidth=1.0, linestyle="--", label="front", zorder=1)
        for i, point in enumerate(points):
            style: dict[str, Any] = line_style(i) | {"linestyle": "none", "markersize": 7}
            fill = {} if point.on_front else {"markerfacecolor": "none"}
            axis.plot([point.parameters], [point.quality], **style | fill, label=point.title)
        axis.set_xscale("log")
        _finish(figure, axis, "parameters of the student", y_label)
        return svg_text(figure, name, f"{y_label} against parameters")


def _finish(figure: Figure, axis: Axes, x_label: str, y_label: str) -> None:
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    axis.grid(axis="y")
    handles, labels = axis.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=2, handlelength=3, fontsize=9)
