"""Micro-batches of pairs that are about equally long.

A look-ahead of several steps is sorted by length, cut into micro-batches and dealt back to its steps. Every step gets
one micro-batch of each stretch of lengths, chosen at random, so that steps stay alike and no step sees only short
texts; ranks that work at the same time work on neighbouring lengths, so that none waits long for another.

A micro-batch of B pairs whose longest English text has N tokens and whose longest target has M is paid as B·(N + M)
tokens by the encoders and as B·N·M entries of cost matrices by optimal transport. Both count padding, because memory
does. Negatives are English rows beside those of the pairs, of which N then counts the longest.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from optical_scale.errors import StreamError
from optical_scale.runtime.seeding import derive_seed
from optical_scale.stream.order import shuffled

_STRIPS = (1, 2, 3, 4, 6)
"""Widths of strips, in English tokens, of which the best is taken."""

_REFINEMENTS = 10
"""Halvings in the search for the most even cut; the budget is used to within 0.1 %."""


class Lengths(Protocol):
    """Tokens of both sides of stored samples."""

    @property
    def digest(self) -> str:
        """Identifies the tokenizers and their limits; a resumed run must find the same."""

    def of(self, source: int, samples: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens of the English and of the target side of ``samples`` of source number ``source``, shape (n, 2)."""


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that a micro-batch may cost; None is no limit.

    Attributes:
        tokens: padded tokens of both sides, B·(N + M), or B·(P·N + M) with P ``passages``.
        transport: entries of padded cost matrices, B·N·M.
        passages: English texts of a pair, 1 and its negatives.
    """

    tokens: int | None = None
    transport: int | None = None
    passages: int = 1

    def use(self, pairs: int, n: int, m: int) -> float:
        """The larger share of the limits that a micro-batch takes; above 1 it is too large."""
        tokens = 0.0 if self.tokens is None else pairs * (self.passages * n + m) / self.tokens
        return max(tokens, 0.0 if self.transport is None else pairs * n * m / self.transport)


@dataclass(frozen=True, slots=True)
class Bucketing:
    """How the look-ahead is cut.

    Attributes:
        lengths: of every sample.
        look_ahead: pairs sorted together, at least one step.
        budget: cut by cost; None cuts into equal numbers of pairs.
        lanes: with a budget, micro-batches of a step are a multiple of this number.
    """

    lengths: Lengths
    look_ahead: int
    budget: Budget | None = None
    lanes: int = 1

    def describe(self, micro_batch_pairs: int | None) -> str:
        """Everything that decides which pairs share a micro-batch; part of the saved state."""
        cut = f"micro_batch_pairs {micro_batch_pairs}"
        if self.budget is not None:
            cut = f"tokens {self.budget.tokens}, transport {self.budget.transport}, lanes {self.lanes}"
            cut += f", passages {self.budget.passages}" if self.budget.passages > 1 else ""
        return f"look_ahead {self.look_ahead}, {cut}, lengths {self.lengths.digest}"


def by_length(lengths_P2: NDArray[np.int64], rows: int = 1) -> NDArray[np.int64]:
    """Positions in an order whose neighbours are alike on both sides.

    Pairs are laid out in strips of English lengths, from one strip to the next; within a strip target lengths go up, in
    the next one down. Narrow strips waste little on the English side and much on the other, so of a few widths the one
    is taken that pads pieces of ``rows`` pairs least.

    Args:
        lengths_P2: tokens of both sides.
        rows: about how many pairs a micro-batch will have.
    """
    n_P, m_P = lengths_P2[:, 0], lengths_P2[:, 1]
    starts = np.arange(0, len(lengths_P2), rows)
    sizes_K1 = np.diff([*starts, len(lengths_P2)])[:, None]
    found: list[tuple[int, NDArray[np.int64]]] = []
    for width in _STRIPS:
        strip_P = n_P // width
        order = np.lexsort((np.where(strip_P % 2 == 0, m_P, -m_P), strip_P))
        found.append((int((np.maximum.reduceat(lengths_P2[order], starts) * sizes_K1).sum()), order))
    return min(found, key=lambda entry: entry[0])[1]


def pieces_within(lengths_P2: NDArray[np.int64], budget: Budget, unit: int) -> int:
    """Into how many pieces a sorted sequence must be cut so that every piece keeps ``budget``.

    Args:
        lengths_P2: tokens of both sides, at least ``unit`` rows.
        budget: limits of a piece.
        unit: the pieces' number is the smallest multiple of it that will do; divides the number of rows.

    Raises:
        StreamError: one pair alone is above the budget.
    """
    pairs = _pairs(lengths_P2)
    worst = _worst(pairs, budget)
    if budget.use(1, *worst) > 1:
        raise StreamError(
            f"a pair of {worst[0]} English and {worst[1]} target tokens alone takes {budget.use(1, *worst):.2f} times "
            f"the budget of a micro-batch (tokens {budget.tokens}, transport {budget.transport}); raise the budget "
            "or lower max_tokens"
        )
    return -(-len(_greedy(pairs, budget, 1.0)) // unit) * unit


def cut_within(lengths_P2: NDArray[np.int64], budget: Budget, pieces: int) -> list[int]:
    """Cut a sorted sequence as evenly as possible into ``pieces`` that keep ``budget``.

    Args:
        lengths_P2: tokens of both sides.
        budget: limits of a piece.
        pieces: at least what :func:`pieces_within` says, at most the number of rows.

    Returns:
        Where pieces end, ascending; the last is the number of rows.
    """
    pairs = _pairs(lengths_P2)
    best = _greedy(pairs, budget, 1.0)
    low, high = budget.use(1, *_worst(pairs, budget)), 1.0
    for _ in range(_REFINEMENTS):
        middle = (low + high) / 2
        ends = _greedy(pairs, budget, middle)
        if len(ends) <= pieces:
            best, high = ends, middle
        else:
            low = middle
    return _split_until(pieces, best, pairs, budget)


def _pairs(lengths_P2: NDArray[np.int64]) -> list[tuple[int, int]]:
    return [(int(n), int(m)) for n, m in lengths_P2]


def _worst(pairs: Sequence[tuple[int, int]], budget: Budget) -> tuple[int, int]:
    return max(pairs, key=lambda pair: budget.use(1, *pair))


def _greedy(pairs: Sequence[tuple[int, int]], budget: Budget, share: float) -> list[int]:
    """Ends of pieces that each take at most ``share`` of the budget, as long as possible from the left."""
    ends, size, most_n, most_m = [], 0, 0, 0
    for position, (n, m) in enumerate(pairs):
        size, most_n, most_m = size + 1, max(most_n, n), max(most_m, m)
        if size > 1 and budget.use(size, most_n, most_m) > share:
            ends.append(position)
            size, most_n, most_m = 1, n, m
    return [*ends, len(pairs)]


def _split_until(pieces: int, ends: list[int], pairs: Sequence[tuple[int, int]], budget: Budget) -> list[int]:
    """Halve the dearest piece of two or more pairs until there are ``pieces``."""

    def entry(start: int, end: int) -> tuple[bool, float, int, int]:
        n, m = (max(pair[side] for pair in pairs[start:end]) for side in (0, 1))
        return end - start == 1, -budget.use(end - start, n, m), start, end

    heap = [entry(start, end) for start, end in zip([0, *ends], ends, strict=False)]
    heapq.heapify(heap)
    while len(heap) < pieces:
        _, _, start, end = heapq.heappop(heap)
        assert end - start > 1, "more pieces than pairs"
        middle = (start + end) // 2
        heapq.heappush(heap, entry(start, middle))
        heapq.heappush(heap, entry(middle, end))
    return sorted(end for *_, end in heap)


def deal(pieces: Sequence[NDArray[np.int64]], sizes: Sequence[int], steps: int, seed: int) -> list[list[int]]:
    """For each of ``steps`` steps the numbers of its pieces, longest texts first.

    Args:
        pieces: micro-batches, their number a multiple of ``steps``.
        sizes: tokens of a row of each piece.
        steps: steps of the look-ahead.
        seed: decides which piece of a stretch goes to which step.
    """
    longest_first = sorted(range(len(pieces)), key=lambda piece: (-sizes[piece], piece))
    dealt: list[list[int]] = [[] for _ in range(steps)]
    for stretch in range(0, len(pieces), steps):
        for place, step in enumerate(shuffled(steps, derive_seed(seed, "stretch", stretch)).tolist()):
            dealt[step].append(longest_first[stretch + place])
    return dealt
