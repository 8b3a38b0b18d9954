"""Charts of a report as SVG text: the same bytes for the same report."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from optical_scale.evaluation.schema import (
    Report,
    ReportedGap,
    Task,
    languages_of,
    metrics_of,
    results_of,
    tasks,
)
from optical_scale.pages.drawing import FAINT, HATCHES, INK, SERIES, STYLE, line_style, svg_text

_DIRECT_LANGUAGES = 10
_DRAWN = ("R@1", "MRR", "pointing", "R@IoU0.5")


def learning_curve_svg(report: Report) -> str:
    """One panel per metric over training steps, and one for the loss; the empty string without any point."""
    metrics = list(dict.fromkeys(point.metric for point in report.learning_curve))
    panels = len(metrics) + bool(report.loss_curve)
    if not panels:
        return ""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 2.9 * panels))
        axes = list(figure.subplots(panels, 1, squeeze=False)[:, 0])
        for axis, metric in zip(axes, metrics, strict=False):
            _curves(axis, report, metric)
        if report.loss_curve:
            steps = [point.step for point in report.loss_curve]
            axes[-1].plot(steps, [point.value for point in report.loss_curve], color=SERIES[1], linewidth=1.5)
            axes[-1].set_title("training loss")
        for axis in axes:
            axis.grid(axis="y")
        axes[-1].set_xlabel("optimizer step")
        return svg_text(figure, "learning", "Learning curves")


def _curves(axis: Axes, report: Report, metric: str) -> None:
    """A line per language; with many languages and known groups, thin lines and one bold mean per group."""
    values: dict[str, dict[int, float]] = {}
    for point in report.learning_curve:
        if point.metric == metric:
            values.setdefault(point.language, {})[point.step] = point.value
    languages = sorted(values, key=lambda language: (-report.training_pairs.get(language, 0), language))
    crowded = len(languages) > _DIRECT_LANGUAGES and report.groups is not None
    for i, language in enumerate(languages):
        steps = sorted(values[language])
        style: dict[str, Any] = {"color": FAINT, "linewidth": 0.8} if crowded else line_style(i)
        label = None if crowded else language
        axis.plot(steps, [values[language][step] for step in steps], label=label, **style)
    if crowded and report.groups is not None:
        for i, (name, group) in enumerate((("high", report.groups.high), ("low", report.groups.low))):
            present = [values[language] for language in group if language in values]
            steps = sorted(set.intersection(*(set(curve) for curve in present))) if present else []
            means = [sum(curve[step] for curve in present) / len(present) for step in steps]
            axis.plot(steps, means, label=f"mean of {name}-resource", **line_style(i + 1), zorder=3)
    axis.set_title(metric)
    axis.set_ylim(bottom=0)
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=3)


def language_bars_svg(report: Report, task: Task) -> str:
    """Bars per language and stage with chance level and interval, a panel for each metric worth one."""
    languages = languages_of(report, task)
    metrics = [metric for metric in _DRAWN if metric in metrics_of(report, task)]
    if not metrics:
        return ""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 1.1 + len(languages) * _row_height(report)))
        axes = list(figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0])
        for axis, metric in zip(axes, metrics, strict=True):
            _bars(axis, report, task, languages, metric)
        axes[0].set_yticks(range(len(languages)), [_label(report, language) for language in languages])
        axes[0].set_ylim(len(languages) - 0.5, -0.5)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), markerscale=0.6)
        return svg_text(figure, f"bars-{tasks(report).index(task)}", "Scores by language and stage")


def _bars(axis: Axes, report: Report, task: Task, languages: Sequence[str], metric: str) -> None:
    thickness = 0.8 / len(report.stages)
    chance: dict[str, float] = {}
    for i, stage in enumerate(report.stages):
        results = results_of(stage, task)
        known = [(row, results[language]) for row, language in enumerate(languages) if language in results]
        middles = [row - 0.4 + thickness * (i + 0.5) for row, _ in known]
        widths = [result.metrics.get(metric, 0.0) for _, result in known]
        color = SERIES[i % len(SERIES)]
        hatch = HATCHES[i % len(HATCHES)] if len(report.stages) > 1 else ""
        face = "none" if hatch else color
        axis.barh(middles, widths, thickness * 0.9, color=face, edgecolor=color, hatch=hatch, label=stage.name)
        spans = [result.intervals.get(metric) for _, result in known]
        for middle, span in zip(middles, spans, strict=True):
            if span is not None:
                axis.plot(span, (middle, middle), color=INK, linewidth=1.0, solid_capstyle="butt")
        chance |= {result.language: result.chance[metric] for _, result in known if metric in result.chance}
    rows = [row for row, language in enumerate(languages) if language in chance]
    levels = [chance[languages[row]] for row in rows]
    size = 72 * 0.8 * _row_height(report)
    axis.plot(levels, rows, "|", color=INK, markersize=size, markeredgewidth=1.6, label="chance")
    axis.set_title(metric)
    axis.set_xlim(0, 1)
    axis.grid(axis="x")
    axis.tick_params(axis="y", length=0)


def _row_height(report: Report) -> float:
    """Inches for all bars of one language."""
    return 0.16 * len(report.stages) + 0.14


def _label(report: Report, language: str) -> str:
    """Tag and number of training pairs, for example ``sw · 12k``."""
    pairs = report.training_pairs.get(language)
    if pairs is None:
        return language
    return f"{language} · {pairs}" if pairs < 1000 else f"{language} · {pairs / 1000:.3g}k"


def gap_svg(report: Report) -> str:
    """Group means per stage joined by a line, with the gap and its interval in words; empty without a gap."""
    if not report.gaps:
        return ""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 1.0 + 0.42 * len(report.gaps)))
        axis = figure.subplots()
        for row, gap in enumerate(report.gaps):
            axis.plot((gap.low_mean, gap.high_mean), (row, row), color=INK, linewidth=2, zorder=2)
            axis.text(
                1.02,
                row,
                f"gap {gap.gap:.3f} [{gap.interval[0]:.3f}, {gap.interval[1]:.3f}]",
                va="center",
                clip_on=False,
            )
        rows = range(len(report.gaps))
        high, low = [g.high_mean for g in report.gaps], [g.low_mean for g in report.gaps]
        axis.scatter(high, rows, s=60, color=SERIES[1], edgecolors=INK, label="high-resource mean", zorder=3)
        axis.scatter(low, rows, s=60, color=SERIES[2], edgecolors=INK, marker="D", label="low-resource mean", zorder=3)
        axis.set_yticks(list(rows), [_gap_label(gap) for gap in report.gaps])
        axis.set_ylim(len(report.gaps) - 0.5, -0.5)
        axis.set_xlim(0, 1)
        axis.grid(axis="x")
        figure.legend(loc="outside lower center", ncols=2)
        return svg_text(figure, "gap", "Gap between language groups")


def _gap_label(gap: ReportedGap) -> str:
    way = "" if gap.direction == "text_to_text" else f", {gap.direction.replace('_', ' ')}"
    return f"{gap.stage}: {gap.metric}, {gap.mode.replace('_', ' ')}{way}"
