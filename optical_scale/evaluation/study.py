"""Many runs become one comparison: means and spreads over seeds, gaps, tests against baselines, fits.

Formulas: ``docs/evaluation.md``. Everything starts from the runs' own reports and per-query values.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from optical_scale.errors import EvaluationError
from optical_scale.evaluation.language_gap import LanguageGroups, percentile_interval
from optical_scale.evaluation.ranking import Values
from optical_scale.evaluation.statistics import (
    fit_line,
    holm,
    pareto_front,
    pooled_bootstrap,
    randomisation_tests,
    statistic_weights,
)
from optical_scale.evaluation.study_schema import (
    CellFacts,
    Comparison,
    Fit,
    ParetoPoint,
    Spread,
    StudyReport,
    Summary,
)
from optical_scale.evaluation.values import Series

Labels = Mapping[str, str]
Task = tuple[str, str, str]
"""Evaluation, direction, mode."""
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class CellResult:
    """What one finished run brings: its place in the grid, its size, and the value of every query."""

    name: str
    labels: Labels
    parameters: int
    seconds: float
    training_pairs: Mapping[str, int]
    values: Mapping[Series, Values]


@dataclass(frozen=True, slots=True)
class _Setting:
    """The cells that differ only in the replicate axis."""

    labels: Labels
    cells: tuple[CellResult, ...]

    @property
    def parameters(self) -> int:
        return max(cell.parameters for cell in self.cells)

    def matrices(self, task: Task, metric: str) -> dict[str, NDArray[np.float64]]:
        """Per language (S, Q): cell, query.

        Raises:
            EvaluationError: the cells were measured on different queries.
        """
        rows: dict[str, list[Values]] = {}
        for cell in self.cells:
            for series, values in cell.values.items():
                if (series.evaluation, series.direction, series.mode) == task and series.metric == metric:
                    rows.setdefault(series.language, []).append(values)
        for language, found in rows.items():
            if len({len(values) for values in found}) != 1 or len(found) != len(self.cells):
                raise EvaluationError(
                    f"study: {language} has {[len(values) for values in found]} queries in the cells "
                    f"{', '.join(cell.name for cell in self.cells)}; evaluate all of them on the same data"
                )
        return {language: np.stack(found) for language, found in rows.items()}


@dataclass(frozen=True, slots=True)
class StudyPlan:
    """What is compared.

    Attributes:
        title: headline.
        axes: labels of every axis, in order.
        replicates: the axis that is averaged over.
        scale: the axis that changes the number of parameters.
        metric: of gaps, tests and fits.
        groups: for the gap; None leaves it out.
        baselines: partial labels; a setting is tested against the one that differs from it only in these.
        corpora: the axis whose values are different corpora, side by side in a table and tested apart; None if none is.
    """

    title: str
    axes: Mapping[str, Sequence[str]]
    replicates: str
    scale: str
    metric: str
    groups: LanguageGroups | None
    baselines: Sequence[Labels] = ()
    corpora: str | None = None


def compare(plan: StudyPlan, cells: Sequence[CellResult], missing: Sequence[str] = ()) -> StudyReport:
    """The whole report.

    Args:
        plan: what is compared.
        cells: finished runs.
        missing: names of the cells without a result, which the report names too.

    Raises:
        EvaluationError: no cell, cells measured on different queries, or nobody has the plan's metric.
    """
    if not cells:
        raise EvaluationError("study: no cell is done yet; run it without --collect")
    settings = list(_settings(plan, cells))
    keys = list(dict.fromkeys(((s.evaluation, s.direction, s.mode), s.metric) for c in cells for s in c.values))
    known = sorted({metric for _, metric in keys})
    if plan.metric not in known:
        raise EvaluationError(f"metric: found {plan.metric!r}; expected one of {', '.join(known)}")
    tasks = [task for task, metric in keys if metric == plan.metric]
    return StudyReport(
        title=plan.title,
        metric=plan.metric,
        axes={name: tuple(labels) for name, labels in plan.axes.items()},
        replicates=plan.replicates,
        scale=plan.scale,
        corpora=plan.corpora,
        high=plan.groups.high if plan.groups else (),
        low=plan.groups.low if plan.groups else (),
        cells=tuple(_facts(cell) for cell in cells),
        missing=tuple(missing),
        summaries=tuple(
            _summary(plan, setting, task, metric, matrices)
            for task, metric in keys
            for setting in settings
            if (matrices := setting.matrices(task, metric))
        ),
        comparisons=tuple(row for task in tasks for row in _comparisons(plan, settings, task)),
        pairs_fits=tuple(fit for task in tasks for fit in _pairs_fits(plan, settings, task)),
        scale_fits=tuple(fit for task in tasks for fit in _scale_fits(plan, settings, task)),
        pareto=tuple(point for task in tasks for point in _pareto(plan, settings, task)),
    )


def _facts(cell: CellResult) -> CellFacts:
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    for series, values in cell.values.items():
        task = "/".join((series.evaluation, series.direction, series.mode))
        metrics.setdefault(task, {}).setdefault(series.language, {})[series.metric] = float(values.mean())
    return CellFacts(
        name=cell.name,
        labels=dict(cell.labels),
        parameters=cell.parameters,
        seconds=cell.seconds,
        training_pairs=dict(cell.training_pairs),
        metrics=metrics,
    )


def _settings(plan: StudyPlan, cells: Sequence[CellResult]) -> Iterator[_Setting]:
    names = [name for name in plan.axes if name != plan.replicates]
    for combination in product(*(plan.axes[name] for name in names)):
        labels = dict(zip(names, combination, strict=True))
        members = tuple(cell for cell in cells if all(cell.labels[name] == labels[name] for name in names))
        if members:
            yield _Setting(labels, members)


def _statistics(plan: StudyPlan, by_language: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    """``all``, ``high``, ``low``, ``gap`` and ``relative gap`` from arrays of language means of any one shape."""
    found = {
        name: np.sum([weight * by_language[language] for language, weight in weights.items()], axis=0)
        for name, weights in statistic_weights(list(by_language), plan.groups).items()
    }
    if "gap" in found:
        with np.errstate(divide="ignore", invalid="ignore"):
            found["relative gap"] = np.where(found["high"] == 0, np.nan, found["gap"] / found["high"])
    return found


def _summary(
    plan: StudyPlan, setting: _Setting, task: Task, metric: str, matrices: Mapping[str, NDArray[np.float64]]
) -> Summary:
    means = {language: matrix.mean(axis=1) for language, matrix in matrices.items()}
    drawn = pooled_bootstrap(matrices) if metric == plan.metric else {}
    drawn_statistics = _statistics(plan, drawn) if drawn else {}
    return Summary(
        labels=dict(setting.labels),
        evaluation=task[0],
        direction=task[1],
        mode=task[2],
        metric=metric,
        parameters=setting.parameters,
        replicates=len(setting.cells),
        queries={language: matrix.shape[1] for language, matrix in matrices.items()},
        training_pairs=_pairs(setting),
        languages={language: _spread(values, drawn.get(language)) for language, values in means.items()},
        statistics={
            name: _spread(values, drawn_statistics.get(name))
            for name, values in _statistics(plan, means).items()
            if not np.isnan(values).any()
        },
    )


def _spread(values: Values, drawn: Values | None) -> Spread:
    """Mean and standard deviation over replicates, and the interval of the mean."""
    interval = None
    if drawn is not None and not np.isnan(drawn).any():
        interval = percentile_interval(drawn, CONFIDENCE)
    deviation = float(values.std(ddof=1)) if len(values) > 1 else None
    return Spread(mean=float(values.mean()), deviation=deviation, interval=interval)


def _pairs(setting: _Setting) -> dict[str, int]:
    """Pairs seen in training by language: the mean over replicates, which differ by rounding at most."""
    languages = dict.fromkeys(language for cell in setting.cells for language in cell.training_pairs)
    counts = {l: [cell.training_pairs.get(l, 0) for cell in setting.cells] for l in languages}
    return {language: round(sum(found) / len(found)) for language, found in counts.items()}


def _comparisons(plan: StudyPlan, settings: Sequence[_Setting], task: Task) -> Iterator[Comparison]:
    """Every setting against every baseline that differs from it in nothing else."""
    by_labels = {tuple(setting.labels.items()): setting for setting in settings}
    families: dict[Any, list[_Pair]] = {}
    met: set[tuple[int, int]] = set()
    for setting in settings:
        for named in plan.baselines:
            baseline = by_labels.get(tuple((dict(setting.labels) | dict(named)).items()))
            if baseline is None or baseline is setting or (id(setting), id(baseline)) in met:
                continue
            met.add((id(setting), id(baseline)))
            ours, theirs = setting.matrices(task, plan.metric), baseline.matrices(task, plan.metric)
            queries = {language: matrix.shape[1] for language, matrix in ours.items()}
            if queries != {language: theirs[language].shape[1] for language in ours if language in theirs}:
                raise EvaluationError(
                    f"study: {_text(setting.labels)} and {_text(baseline.labels)} were measured on different queries; "
                    "evaluate both on the same data"
                )
            if queries:
                pair = _Pair(setting, baseline, {l: ours[l].mean(axis=0) - theirs[l].mean(axis=0) for l in ours})
                family = (setting.labels.get(plan.corpora or ""), frozenset(queries.items()))
                families.setdefault(family, []).append(pair)
    for pairs in families.values():
        yield from _tested(plan, task, pairs)


class _Pair(NamedTuple):
    """A setting, its baseline, and by language the difference in every query, averaged over replicates."""

    setting: _Setting
    baseline: _Setting
    differences: Mapping[str, Values]


def _tested(plan: StudyPlan, task: Task, pairs: Sequence[_Pair]) -> Iterator[Comparison]:
    """Pairs that were measured on the same queries; Holm over each statistic."""
    tested = randomisation_tests([pair.differences for pair in pairs], plan.groups)
    for position in range(len(tested[0])):
        adjusted = holm([row[position].p for row in tested])
        for pair, row, corrected in zip(pairs, tested, adjusted, strict=True):
            yield Comparison(
                labels=dict(pair.setting.labels),
                baseline=dict(pair.baseline.labels),
                evaluation=task[0],
                direction=task[1],
                mode=task[2],
                metric=plan.metric,
                statistic=row[position].statistic,
                difference=row[position].difference,
                p=row[position].p,
                p_holm=corrected,
            )


def _text(labels: Labels) -> str:
    return ", ".join(f"{name} {label}" for name, label in labels.items()) or "the only setting"


def _pairs_fits(plan: StudyPlan, settings: Sequence[_Setting], task: Task) -> Iterator[Fit]:
    """Per setting: a language's metric against log10 of its training pairs."""
    for setting in settings:
        matrices, pairs = setting.matrices(task, plan.metric), _pairs(setting)
        languages = [language for language in matrices if pairs.get(language, 0) > 0]
        x = [float(np.log10(pairs[language])) for language in languages]
        y = [float(matrices[language].mean()) for language in languages]
        yield _fit(task, setting.labels, x, y, languages)


def _scale_fits(plan: StudyPlan, settings: Sequence[_Setting], task: Task) -> Iterator[Fit]:
    """Per series (settings that differ only in scale): each run's gap against log10 of its parameters."""
    series: dict[tuple[tuple[str, str], ...], list[_Setting]] = {}
    for setting in settings:
        key = tuple(item for item in setting.labels.items() if item[0] != plan.scale)
        series.setdefault(key, []).append(setting)
    for labels, members in series.items():
        x: list[float] = []
        y: list[float] = []
        names: list[str] = []
        for setting in members:
            means = {l: matrix.mean(axis=1) for l, matrix in setting.matrices(task, plan.metric).items()}
            gaps = _statistics(plan, means).get("gap") if means else None
            if gaps is not None:
                x += [float(np.log10(cell.parameters)) for cell in setting.cells]
                y += gaps.tolist()
                names += [cell.name for cell in setting.cells]
        if x:
            yield _fit(task, dict(labels), x, y, names)


def _fit(task: Task, labels: Labels, x: list[float], y: list[float], names: list[str]) -> Fit:
    line = fit_line(np.array(x), np.array(y), confidence=CONFIDENCE)
    return Fit(
        labels=dict(labels),
        evaluation=task[0],
        direction=task[1],
        mode=task[2],
        names=tuple(names),
        x=tuple(x),
        y=tuple(y),
        slope=line.slope if line else None,
        intercept=line.intercept if line else None,
        slope_interval=line.slope_interval if line else None,
        r_squared=line.r_squared if line else None,
    )


def _pareto(plan: StudyPlan, settings: Sequence[_Setting], task: Task) -> Iterator[ParetoPoint]:
    """Mean over all languages against parameters, per setting; each corpus has a front of its own."""
    measured: dict[str | None, list[tuple[_Setting, float]]] = {}
    for setting in settings:
        if matrices := setting.matrices(task, plan.metric):
            quality = float(np.mean([matrix.mean() for matrix in matrices.values()]))
            measured.setdefault(setting.labels.get(plan.corpora or ""), []).append((setting, quality))
    for rivals in measured.values():
        front = pareto_front([setting.parameters for setting, _ in rivals], [quality for _, quality in rivals])
        for (setting, quality), kept in zip(rivals, front, strict=True):
            yield ParetoPoint(
                labels=dict(setting.labels),
                evaluation=task[0],
                direction=task[1],
                mode=task[2],
                parameters=setting.parameters,
                quality=quality,
                on_front=kept,
            )
