"""Which source supplies the g-th pair of the run.

Languages are drawn with probability p ∝ n^(1/T), n pairs in the language and T the temperature: T = 1 is proportional
to size, T → ∞ uniform (Arivazhagan et al., arXiv 1907.05019), or with explicit weights. Sources of one language share
its probability in proportion to their sizes. Nothing is random: draws are dealt as evenly as possible.

Dealing between two parties that should get a and b of every a + b draws is easy: after j draws the first has had
round(j·a / (a + b)) and the other the rest, so draw j goes to the first exactly when that number grows. More parties
play a knock-out tournament: the two lightest join into one party of their summed weight, again and again (a Huffman
tree). To find the owner of draw g, start at the root and ask at every split who gets the draw, and the how-many-th draw
of that side it is. That takes one step per level, for any g, without looking at the draws before it.

How even is it? A split misplaces at most half a draw. A miss at a split reaches a language below it scaled by the
language's share in that split's side, so a language of weight w is off by at most ½·Σ w/w_i over the sides w_i on its
path (itself included, the root excluded). In a Huffman tree these weights grow at least like Fibonacci numbers, so
the sum is below 1 + 1 + 1/2 + 1/3 + 1/5 + … = 3.36: **after any number of draws a language has been drawn within 1.68
of its exact share**, for any number of languages. (Sorting languages by virtual time (k + ½)/p has no such bound: many
rare languages bunch together. The greedy schedules that guarantee 1 need the whole history.)

All weights are integers and all arithmetic is exact. The one irrational step, n^(1/T), uses decimal ``ln`` and ``exp``,
which are correctly rounded by specification, so every machine gets the same integers; T = 1 is exact.
"""

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal, DivisionByZero, InvalidOperation
from fractions import Fraction
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from optical_scale.errors import StreamError

_EXACT = Context(prec=50, rounding=ROUND_HALF_EVEN, traps=[InvalidOperation, DivisionByZero])
_SCALE = 10**30


class Portion(NamedTuple):
    """What mixing needs to know about a source: its unique name, its language and its number of pairs."""

    name: str
    language: str
    pairs: int


class Draw(NamedTuple):
    """Draw number ``k`` (from 0) of source number ``source``."""

    source: int
    k: int


@dataclass(frozen=True, slots=True)
class Exposure:
    """How often a run sees one language.

    Attributes:
        language: BCP-47 tag.
        pairs: distinct pairs available.
        probability: share of all draws.
        draws: exact number of draws.
        epochs: draws per pair.
    """

    language: str
    pairs: int
    probability: float
    draws: int
    epochs: float


@dataclass(frozen=True, slots=True)
class _Split:
    """A match of the tournament: of ``total`` draws, ``share`` go left. A side is a split or a source number."""

    share: int
    total: int
    left: "_Split | int"
    right: "_Split | int"

    def left_count(self, j: int) -> int:
        """Draws the left side has had after ``j`` draws: j·share/total rounded half up."""
        return (2 * self.share * j + self.total) // (2 * self.total)

    def left_turn(self, i: int) -> int:
        """The draw in which the left side has its turn number ``i``, from 0: left_count grows from i to i + 1."""
        return -(-self.total * (2 * i + 1) // (2 * self.share)) - 1

    def right_turn(self, i: int) -> int:
        """The same for the right side."""
        return self.total * (2 * i + 1) // (2 * (self.total - self.share))


class Mixing(Protocol):
    """What the plan asks of a mixture, or of a :class:`~optical_scale.stream.curriculum.Curriculum` of several."""

    portions: tuple[Portion, ...]
    pairs: dict[str, int]

    def owners(self, start: int, stop: int) -> NDArray[np.int64]:
        """The source of each draw ``start`` … ``stop`` - 1."""

    def counts(self, draws: int) -> tuple[int, ...]:
        """How many of the first ``draws`` draws each source supplied."""

    def language_counts(self, draws: int) -> dict[str, int]:
        """How many of the first ``draws`` draws each language supplied."""

    def exposure(self, draws: int) -> tuple[Exposure, ...]:
        """What ``draws`` draws mean for each language."""

    def describe(self) -> dict[str, str]:
        """Exact probabilities, for the saved state."""


class Mixture:
    """The draw sequence of several sources.

    Args:
        portions: the sources; :class:`Draw` refers to them by position. Their order does not influence the sequence.
        temperature: T in p ∝ n^(1/T); positive, may be ``math.inf``.
        weights: relative weight of each language instead of a temperature.

    Attributes:
        portions: as given.
        shares: exact probability of each language, in order of language.

    Raises:
        StreamError: no source, an empty one, a repeated name, an impossible temperature or incomplete weights.
    """

    def __init__(
        self, portions: Sequence[Portion], temperature: float = 1.0, weights: Mapping[str, float] | None = None
    ) -> None:
        _check(portions)
        self.portions = tuple(portions)
        self.pairs: dict[str, int] = dict.fromkeys(sorted({portion.language for portion in portions}), 0)
        for portion in portions:
            self.pairs[portion.language] += portion.pairs
        if weights is None:
            weight_of = _by_temperature(self.pairs, temperature)
        elif temperature != 1.0:
            raise StreamError(f"both weights and temperature {temperature:g} were given; remove one")
        else:
            weight_of = _by_weights(self.pairs, weights)
        total = sum(weight_of.values())
        self.shares = {language: Fraction(weight, total) for language, weight in weight_of.items()}
        members: dict[str, list[tuple[int, str, _Split | int]]] = {language: [] for language in self.pairs}
        for number, portion in enumerate(portions):
            members[portion.language].append((portion.pairs, portion.name, number))
        self._root = _tournament([(weight, lang, _tournament(members[lang])) for lang, weight in weight_of.items()])

    def draw(self, position: int) -> Draw:
        """The owner of draw number ``position`` ≥ 0 of the run; work grows with the depth of the tree only."""
        node, j = self._root, position
        while not isinstance(node, int):
            before = node.left_count(j)
            if node.left_count(j + 1) > before:
                node, j = node.left, before
            else:
                node, j = node.right, j - before
        return Draw(node, j)

    def owners(self, start: int, stop: int) -> NDArray[np.int64]:
        """The source of each draw ``start`` … ``stop`` - 1, shape (stop - start,); many times faster than draw by draw.

        At every split only the side with fewer turns is enumerated, the other one has the rest.
        """
        owner = np.empty(stop - start, dtype=np.int64)
        waiting: list[tuple[_Split | int, int, int, NDArray[np.int64]]] = [
            (self._root, start, stop, np.arange(stop - start))
        ]
        while waiting:
            node, first, last, places = waiting.pop()
            if isinstance(node, int):
                owner[places] = node
                continue
            left_first, left_last = node.left_count(first), node.left_count(last)
            right_first, right_last = first - left_first, last - left_last
            fewer_left = left_last - left_first < right_last - right_first
            turns = (
                [node.left_turn(i) - first for i in range(left_first, left_last)]
                if fewer_left
                else [node.right_turn(i) - first for i in range(right_first, right_last)]
            )
            is_left = np.full(last - first, not fewer_left)
            is_left[turns] = fewer_left
            if left_last > left_first:
                waiting.append((node.left, left_first, left_last, places[is_left]))
            if right_last > right_first:
                waiting.append((node.right, right_first, right_last, places[~is_left]))
        return owner

    def counts(self, draws: int) -> tuple[int, ...]:
        """How many of the first ``draws`` draws each source supplied, in order of ``portions``."""
        counts = [0] * len(self.portions)
        waiting: list[tuple[_Split | int, int]] = [(self._root, draws)]
        while waiting:
            node, j = waiting.pop()
            if isinstance(node, int):
                counts[node] = j
            else:
                left = node.left_count(j)
                waiting += [(node.left, left), (node.right, j - left)]
        return tuple(counts)

    def language_counts(self, draws: int) -> dict[str, int]:
        """How many of the first ``draws`` draws each language supplied, in order of language."""
        totals = dict.fromkeys(self.pairs, 0)
        for portion, count in zip(self.portions, self.counts(draws), strict=True):
            totals[portion.language] += count
        return totals

    def exposure(self, draws: int) -> tuple[Exposure, ...]:
        """What ``draws`` draws mean for each language: one row a language, in order of language."""
        return tuple(
            Exposure(language, self.pairs[language], float(self.shares[language]), count, count / self.pairs[language])
            for language, count in self.language_counts(draws).items()
        )

    def describe(self) -> dict[str, str]:
        """The probability of each language as ``numerator/denominator``, for the saved state."""
        return {language: f"{share.numerator}/{share.denominator}" for language, share in self.shares.items()}


def _tournament(parties: list[tuple[int, str, _Split | int]]) -> _Split | int:
    """Join (weight, label, party) into a Huffman tree; equal weights are ordered by label."""
    heap = list(parties)
    heapq.heapify(heap)
    while len(heap) > 1:
        (weight, label, left), (other_weight, other_label, right) = heapq.heappop(heap), heapq.heappop(heap)
        total = weight + other_weight
        common = math.gcd(weight, total)
        joined = _Split(weight // common, total // common, left, right)
        heapq.heappush(heap, (total, min(label, other_label), joined))
    return heap[0][2]


def _check(portions: Sequence[Portion]) -> None:
    if not portions:
        raise StreamError("there is nothing to draw from: the list of sources is empty; name at least one corpus")
    seen: set[str] = set()
    for portion in portions:
        if portion.pairs < 1:
            raise StreamError(
                f"source {portion.name!r} ({portion.language}) has no samples; remove it or convert again"
            )
        if portion.name in seen:
            raise StreamError(
                f"two sources are called {portion.name!r}; their orders are told apart by name, rename one"
            )
        seen.add(portion.name)


def _by_temperature(pairs: Mapping[str, int], temperature: float) -> dict[str, int]:
    """Integer weights ∝ n^(1/T), with 30 decimal digits below the largest; exact for T = 1."""
    if not temperature > 0:
        raise StreamError(f"temperature is {temperature:g}; p ∝ n^(1/T) needs T > 0 (1 is proportional to size)")
    if temperature == 1:
        return dict(pairs)
    largest = Decimal(max(pairs.values()))
    weights = {}
    for language, n in pairs.items():
        exponent = _EXACT.divide(_EXACT.ln(_EXACT.divide(Decimal(n), largest)), Decimal(repr(float(temperature))))
        scaled = _EXACT.multiply(_EXACT.exp(exponent), Decimal(_SCALE))
        weights[language] = max(1, int(scaled.to_integral_value(ROUND_HALF_EVEN)))
    return weights


def _by_weights(pairs: Mapping[str, int], weights: Mapping[str, float]) -> dict[str, int]:
    """The decimal numbers a person wrote, brought to a common denominator."""
    if set(weights) != set(pairs):
        missing, unknown = sorted(set(pairs) - set(weights)), sorted(set(weights) - set(pairs))
        raise StreamError(
            f"stream.weights must name exactly the languages of the sources ({', '.join(pairs)}); "
            f"missing: {', '.join(missing) or 'none'}; unknown: {', '.join(unknown) or 'none'}"
        )
    for language, weight in weights.items():
        if not (math.isfinite(weight) and weight > 0):
            raise StreamError(
                f"weight of {language} is {weight:g}; it must be positive (remove its sources to drop it)"
            )
    exact = {language: Fraction(repr(float(weights[language]))) for language in pairs}
    denominator = math.lcm(*(fraction.denominator for fraction in exact.values()))
    return {language: int(fraction * denominator) for language, fraction in exact.items()}
