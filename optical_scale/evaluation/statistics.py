"""Statistics across runs: intervals over queries and seeds, paired tests, corrected p-values, lines with intervals.

Formulas and what the intervals speak of: ``docs/evaluation.md``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from optical_scale.errors import EvaluationError
from optical_scale.evaluation.language_gap import Interval, LanguageGroups, Values

_DRAWS_PER_BLOCK = 4 << 20


def pooled_bootstrap(
    values: Mapping[str, NDArray[np.float64]], *, resamples: int = 2000, seed: int = 0
) -> dict[str, Values]:
    """Bootstrap means of every language over training runs and queries.

    Each draw takes S of the S runs with replacement, the same ones in all languages, and then queries with replacement
    within each language, the same ones in all drawn runs.

    Args:
        values: by language, (S, Q): run, query.
        resamples: draws R.
        seed: of the draws.

    Returns:
        By language the means of the draws, (R,). Draw r of several languages belongs together.

    Raises:
        EvaluationError: languages differ in the number of runs, or one has no value.
    """
    runs = {len(matrix) for matrix in values.values()}
    if len(runs) != 1 or any(matrix.size == 0 for matrix in values.values()):
        raise EvaluationError(
            f"pooled bootstrap: languages with {sorted(runs)} runs, and sizes "
            f"{ {l: m.shape for l, m in values.items()} }; expected the same runs and at least one query in each"
        )
    (count,) = runs
    rng = np.random.default_rng(seed)
    share_RS = rng.multinomial(count, np.full(count, 1 / count), size=resamples) / count
    means = {}
    for language, matrix in values.items():
        block = max(1, _DRAWS_PER_BLOCK // matrix.shape[1])
        parts = []
        for start in range(0, resamples, block):
            mixed = share_RS[start : start + block] @ matrix
            drawn = rng.integers(matrix.shape[1], size=mixed.shape)
            parts.append(np.take_along_axis(mixed, drawn, axis=1).mean(axis=1))
        means[language] = np.concatenate(parts)
    return means


@dataclass(frozen=True, slots=True)
class Difference:
    """A system minus a baseline under one statistic.

    Attributes:
        statistic: ``all``, ``high``, ``low`` (group means) or ``gap``.
        difference: of the statistic.
        p: two-sided, before any correction.
    """

    statistic: str
    difference: float
    p: float


def randomisation_tests(
    differences: Sequence[Mapping[str, Values]],
    groups: LanguageGroups | None,
    *,
    draws: int = 10_000,
    seed: int = 0,
) -> list[list[Difference]]:
    """Paired randomisation tests (Smucker, Allan and Carterette, 2007) of several systems against baselines.

    Under the null hypothesis system and baseline are exchangeable within each query, so the sign of each difference is
    random. p = (1 + #{draws at least as far from 0 as observed}) / (1 + draws).

    Args:
        differences: per comparison and language the per-query differences system - baseline, (Q,), each the mean over
            training seeds. A language has the same number of queries in all comparisons.
        groups: languages outside are ignored by ``high``, ``low`` and ``gap``; None tests only ``all``.
        draws: random sign vectors; shared by the comparisons, which does not bias any single test.
        seed: of the draws.

    Returns:
        Per comparison one :class:`Difference` per statistic.
    """
    if not differences:
        return []
    languages = list(differences[0])
    assert all(set(comparison) == set(languages) for comparison in differences), "test each collection on its own"
    rng = np.random.default_rng(seed)
    observed, drawn = {}, {}
    for language in languages:
        stacked_QK = np.stack([comparison[language] for comparison in differences], axis=1)
        observed[language] = stacked_QK.mean(axis=0)
        block = max(1, _DRAWS_PER_BLOCK // len(stacked_QK))
        parts = []
        for start in range(0, draws, block):
            signs = rng.integers(2, size=(min(block, draws - start), len(stacked_QK)), dtype=np.int8)
            # With bits b in {0, 1}, sum of (2b - 1) d = 2 b·d - sum of d.
            parts.append((2 * (signs.astype(np.float64) @ stacked_QK) - stacked_QK.sum(axis=0)) / len(stacked_QK))
        drawn[language] = np.concatenate(parts)
    found: list[list[Difference]] = [[] for _ in differences]
    for name, weights in statistic_weights(languages, groups).items():
        value_K = sum(weight * observed[language] for language, weight in weights.items())
        draw_RK = sum(weight * drawn[language] for language, weight in weights.items())
        # Equal sums in another order of additions differ in the last bits.
        p_K = (1 + (np.abs(draw_RK) >= np.abs(value_K) - 1e-12).sum(axis=0)) / (1 + draws)
        for k, row in enumerate(found):
            row.append(Difference(name, float(np.asarray(value_K)[k]), float(p_K[k])))
    return found


def statistic_weights(languages: Sequence[str], groups: LanguageGroups | None) -> dict[str, dict[str, float]]:
    """Each statistic as a weighted sum of language means; the group statistics only if all of their languages exist."""
    weights = {"all": dict.fromkeys(languages, 1 / len(languages))}
    if groups is not None and set(groups.high + groups.low) <= set(languages):
        high = dict.fromkeys(groups.high, 1 / len(groups.high))
        low = dict.fromkeys(groups.low, 1 / len(groups.low))
        weights |= {"high": high, "low": low, "gap": high | {language: -weight for language, weight in low.items()}}
    return weights


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values of the step-down procedure of Holm (1979), in the order given; compare them with alpha."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, floor = [0.0] * len(p_values), 0.0
    for rank, position in enumerate(order):
        floor = max(floor, min(1.0, (len(p_values) - rank) * p_values[position]))
        adjusted[position] = floor
    return adjusted


@dataclass(frozen=True, slots=True)
class Line:
    """Least squares y = intercept + slope x with t-intervals under equal, normal, independent errors.

    Attributes:
        slope: change of y per unit of x.
        intercept: at x = 0.
        slope_interval: of the slope.
        r_squared: share of the variance of y explained; None if y does not vary.
        points: number of points n.
        centre: mean of x.
        spread: sum of squared deviations of x.
        error: residual standard deviation with n - 2 degrees of freedom.
        confidence: nominal coverage.
    """

    slope: float
    intercept: float
    slope_interval: Interval
    r_squared: float | None
    points: int
    centre: float
    spread: float
    error: float
    confidence: float

    def at(self, x: Values) -> tuple[Values, Values]:
        """The line and half the width of the interval of its mean response, at each x."""
        quantile = stats.t.ppf(0.5 + self.confidence / 2, self.points - 2)
        half = quantile * self.error * np.sqrt(1 / self.points + (x - self.centre) ** 2 / self.spread)
        return self.intercept + self.slope * x, half


def fit_line(x: Values, y: Values, *, confidence: float = 0.95) -> Line | None:
    """A line through at least three points with at least two different x; None with fewer."""
    if len(x) < 3 or np.ptp(x) == 0:
        return None
    centre, spread = float(x.mean()), float(((x - x.mean()) ** 2).sum())
    slope = float(((x - centre) * (y - y.mean())).sum() / spread)
    intercept = float(y.mean() - slope * centre)
    residual = float(((y - intercept - slope * x) ** 2).sum())
    total = float(((y - y.mean()) ** 2).sum())
    error = float(np.sqrt(residual / (len(x) - 2)))
    half = float(stats.t.ppf(0.5 + confidence / 2, len(x) - 2)) * error / float(np.sqrt(spread))
    r_squared = 1 - residual / total if total > 0 else None
    return Line(slope, intercept, (slope - half, slope + half), r_squared, len(x), centre, spread, error, confidence)


def pareto_front(cost: Sequence[float], quality: Sequence[float]) -> list[bool]:
    """Which points nobody dominates.

    A point is dominated when another costs at most as much and has at least its quality, one of both strictly.
    """
    points = list(zip(cost, quality, strict=True))
    return [not any(c <= mine[0] and q >= mine[1] and (c, q) != mine for c, q in points) for mine in points]
