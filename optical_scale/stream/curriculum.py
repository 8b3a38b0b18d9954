"""Mixtures that change at given steps.

Each phase deals its own draws evenly. A source that was drawn k times before a phase goes on with its draw k, so no
sample repeats before its epoch ends, whatever the phases were.
"""

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from optical_scale.errors import StreamError
from optical_scale.stream.mixing import Exposure, Mixture


class Curriculum:
    """Several mixtures of the same sources, one after another; see :class:`~optical_scale.stream.mixing.Mixing`.

    Args:
        phases: first draw and mixture of each phase, ascending, the first from draw 0.

    Raises:
        StreamError: phases that do not begin at 0 or do not ascend.
    """

    def __init__(self, phases: Sequence[tuple[int, Mixture]]) -> None:
        starts = [start for start, _ in phases]
        if not starts or starts[0] != 0 or any(late <= early for early, late in itertools.pairwise(starts)):
            raise StreamError(f"phases of a curriculum start at draws {starts}; they must ascend from 0")
        self.portions = phases[0][1].portions
        self.pairs = phases[0][1].pairs
        assert all(mixture.portions == self.portions for _, mixture in phases)
        self._phases = tuple(phases)

    def _parts(self, start: int, stop: int) -> list[tuple[Mixture, int, int]]:
        """For each phase that has draws in the range, its mixture and the range in its own numbers."""
        ends = [first for first, _ in self._phases[1:]] + [max(stop, self._phases[-1][0])]
        clipped = [
            (mixture, max(start, first) - first, min(stop, end) - first)
            for (first, mixture), end in zip(self._phases, ends, strict=True)
        ]
        return [(mixture, first, last) for mixture, first, last in clipped if last > first]

    def owners(self, start: int, stop: int) -> NDArray[np.int64]:
        """The source of each draw ``start`` … ``stop`` - 1, shape (stop - start,)."""
        parts = [mixture.owners(first, last) for mixture, first, last in self._parts(start, stop)]
        return np.concatenate([np.empty(0, dtype=np.int64), *parts])

    def counts(self, draws: int) -> tuple[int, ...]:
        """How many of the first ``draws`` draws each source supplied."""
        totals = [0] * len(self.portions)
        for mixture, _, last in self._parts(0, draws):
            totals = [total + count for total, count in zip(totals, mixture.counts(last), strict=True)]
        return tuple(totals)

    def language_counts(self, draws: int) -> dict[str, int]:
        """How many of the first ``draws`` draws each language supplied, in order of language."""
        totals = dict.fromkeys(self.pairs, 0)
        for portion, count in zip(self.portions, self.counts(draws), strict=True):
            totals[portion.language] += count
        return totals

    def exposure(self, draws: int) -> tuple[Exposure, ...]:
        """What ``draws`` draws mean for each language; the probability is the mean over the phases so far."""
        return tuple(
            Exposure(language, self.pairs[language], count / max(1, draws), count, count / self.pairs[language])
            for language, count in self.language_counts(draws).items()
        )

    def describe(self) -> dict[str, str]:
        """Exact probabilities of every phase, for the saved state."""
        return {
            f"{language} from draw {first}": share
            for first, mixture in self._phases
            for language, share in mixture.describe().items()
        }
