"""How much better high-resource languages are served than low-resource ones, with an interval.

With v(l, q) the value of query q of language l (for example its reciprocal rank) and m(l) its mean over the queries of
l, the mean of a group G is the unweighted mean over its languages, so that a language with many queries counts once::

    mean(G)      = 1 / |G| * sum over l in G of m(l)
    gap          = mean(high) - mean(low)
    relative gap = gap / mean(high)

Intervals are bootstrap percentiles (Efron and Tibshirani, 1993, chapter 13): queries are drawn with replacement within
each language, independently between languages. They speak of the choice of queries, not of languages or training seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optical_scale.errors import EvaluationError

Values = NDArray[np.float64]
Interval = tuple[float, float]
_DRAWS_PER_BLOCK = 4 << 20


@dataclass(frozen=True, slots=True)
class LanguageGroups:
    """Which languages count as high-resource and which as low-resource; each at least one, none in both.

    Raises:
        EvaluationError: a group is empty, or the groups share a language.
    """

    high: tuple[str, ...]
    low: tuple[str, ...]

    def __post_init__(self) -> None:
        shared = set(self.high) & set(self.low)
        if not self.high or not self.low or shared:
            problem = f"both contain {', '.join(sorted(shared))}" if shared else "a group is empty"
            raise EvaluationError(
                f"language groups high = {list(self.high)}, low = {list(self.low)}: {problem}; "
                "expected two disjoint groups of at least one language each"
            )

    @classmethod
    def by_count(cls, counts: Mapping[str, int], threshold: int) -> "LanguageGroups":
        """High: languages with at least ``threshold`` training pairs; low: all others, both by descending count."""
        ordered = sorted(counts, key=lambda language: (-counts[language], language))
        high = tuple(language for language in ordered if counts[language] >= threshold)
        return cls(high, tuple(ordered[len(high) :]))


@dataclass(frozen=True, slots=True)
class LanguageGap:
    """Means of both groups, their difference, and its interval; formulas in the module's docstring.

    Attributes:
        groups: the languages.
        high_mean: mean of the high-resource group.
        low_mean: mean of the low-resource group.
        gap: high mean - low mean.
        relative_gap: gap / high mean; NaN when that is 0.
        interval: bounds of the gap.
        relative_interval: bounds of the relative gap; NaN when the high mean of some resample is 0.
        confidence: nominal coverage of both intervals.
    """

    groups: LanguageGroups
    high_mean: float
    low_mean: float
    gap: float
    relative_gap: float
    interval: Interval
    relative_interval: Interval
    confidence: float


def language_gap(
    per_query: Mapping[str, Values],
    groups: LanguageGroups,
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> LanguageGap:
    """The gap of one metric between two groups of languages.

    Args:
        per_query: values of each language's queries, (Q,); languages outside the groups are ignored.
        groups: the two groups.
        resamples: bootstrap draws.
        confidence: coverage of the intervals, in (0, 1).
        seed: of the draws; equal seeds give equal intervals.

    Raises:
        EvaluationError: a language of a group has no values.
    """
    missing = [language for language in (*groups.high, *groups.low) if not len(per_query.get(language, ()))]
    if missing:
        raise EvaluationError(
            f"language gap: no query was evaluated for {', '.join(missing)}; evaluated are {', '.join(per_query)}. "
            "Take these languages out of the groups or add evaluation data"
        )
    rng = np.random.default_rng(seed)
    drawn_high, drawn_low = (
        np.mean([bootstrap_means(per_query[language], resamples, rng) for language in group], axis=0)
        for group in (groups.high, groups.low)
    )
    high, low = (float(np.mean([per_query[l].mean() for l in group])) for group in (groups.high, groups.low))
    drawn_gap = drawn_high - drawn_low
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn_relative = np.where(drawn_high == 0, np.nan, drawn_gap / drawn_high)
    return LanguageGap(
        groups,
        high,
        low,
        high - low,
        (high - low) / high if high else float("nan"),
        percentile_interval(drawn_gap, confidence),
        percentile_interval(drawn_relative, confidence),
        confidence,
    )


def gap_change(
    before: Mapping[str, Values],
    after: Mapping[str, Values],
    groups: LanguageGroups,
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, Interval]:
    """Gap after minus gap before (negative: the gap narrowed) and its interval.

    Paired: both sides are evaluated on the same queries in the same order, and resampled together; as a gap is linear
    in the values, this is the gap of the queries' differences.

    Raises:
        EvaluationError: a language has different numbers of queries before and after, or none.
    """
    languages: Sequence[str] = (*groups.high, *groups.low)
    for language in languages:
        counts = [len(side.get(language, ())) for side in (before, after)]
        if counts[0] != counts[1]:
            raise EvaluationError(
                f"gap change: {language} has {counts[0]} queries before and {counts[1]} after; "
                "evaluate both sides on the same data"
            )
    difference = {language: after[language] - before[language] for language in languages if language in before}
    change = language_gap(difference, groups, resamples=resamples, confidence=confidence, seed=seed)
    return change.gap, change.interval


def mean_interval(values: Values, *, resamples: int = 2000, confidence: float = 0.95, seed: int = 0) -> Interval:
    """Bootstrap percentile interval of one language's mean."""
    return percentile_interval(bootstrap_means(values, resamples, np.random.default_rng(seed)), confidence)


def bootstrap_means(values: Values, resamples: int, rng: np.random.Generator) -> Values:
    """Means of ``resamples`` draws with replacement from ``values``, (resamples,)."""
    block = max(1, _DRAWS_PER_BLOCK // len(values))
    means = [
        values[rng.integers(len(values), size=(min(block, resamples - start), len(values)))].mean(axis=1)
        for start in range(0, resamples, block)
    ]
    return np.concatenate(means)


def percentile_interval(draws: Values, confidence: float) -> Interval:
    """The central ``confidence`` share of the draws."""
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(draws, [tail, 100 - tail])
    return float(low), float(high)
