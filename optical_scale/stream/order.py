"""The order in which one source gives its samples.

A source of n samples is drawn again and again. Draw k belongs to epoch k // n and is position k % n of that epoch.
An epoch is built in three moves:

1. the source's shards are shuffled and laid end to end, which gives every position a sample;
2. the positions are cut into regions of 1,048,576, these into blocks of 256, and a region's blocks are shuffled;
3. the positions are cut into windows of 8,192 and shuffled inside each window.

All moves only rearrange, so an epoch gives every sample exactly once; the next epoch uses new random numbers. The
second move mixes corpora that lie one behind the other in a shard: a window alone would give a training run first the
one, then the other. Reading stays local: at any time only the shards under one region are in use, and of these, runs of
256 neighbours.

**Parts.** Where every node fetches what it reads, a node should need a part of the corpus, not all of it. With P parts
a fourth move comes first: position q of an epoch becomes position q // P of part q % P, and parts lie end to end, so
that each covers its own stretch of shards. Whoever takes every P-th draw then stays in one part for a whole epoch, and
all of them together still give every sample exactly once. Regions are cut down to an eighth of a part, or the second
move would undo it.

"Shuffled" always means: sorted by random numbers from the counter-based generator Philox (Salmon et al., "Parallel
Random Numbers: As Easy as 1, 2, 3", SC 2011), seeded with the purpose. The raw output of a NumPy bit generator is
guaranteed never to change, unlike ``Generator.permutation``, and the sort is stable, so the order is the same on every
machine and with every version.
"""

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from optical_scale.runtime.seeding import derive_seed

BLOCK = 256
"""Neighbours that are read at about the same time, so that a page of the file serves more than one draw."""
WINDOW = 8192
"""Positions shuffled together: large enough to separate neighbours, small enough to stay in the page cache."""
REGION = 1 << 20
"""Positions over which blocks are shuffled; a multiple of ``WINDOW`` and ``BLOCK``. Bounds the shards in use."""

Value = TypeVar("Value")


def shuffled(n: int, seed: int) -> NDArray[np.int64]:
    """The numbers 0 … n-1 in the random order given by ``seed``, shape (n,)."""
    keys = np.random.Philox(key=seed).random_raw(n)
    return np.argsort(keys, kind="stable").astype(np.int64, copy=False)


class Recent(Generic[Value]):
    """Remembers the latest few values of a pure function; forgetting one costs time and changes nothing."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._values: dict[Hashable, Value] = {}

    def get(self, key: Hashable, compute: Callable[[], Value]) -> Value:
        """The value for ``key``, computed if it is not remembered."""
        if key not in self._values:
            while len(self._values) >= self._limit:
                del self._values[next(iter(self._values))]
            self._values[key] = compute()
        return self._values[key]


class SampleOrder:
    """The order of one source: ``sample_at(k)`` is the index of its k-th draw.

    Work per draw is one window lookup and two binary searches, over blocks and shards. Kept in memory: two epochs of
    shard order (24 bytes a shard), two regions (64 KiB each) and 16 windows (16 KiB each), of both more if one process
    reads many parts; computing an epoch costs one sort of the shards, a region one of 4,096 numbers, a window one of
    8,192.

    Args:
        name: the source's name; sources with other names have unrelated orders.
        shard_sizes: samples in each shard, in index order.
        seed: the run's data seed.
        parts: P, see above.
    """

    def __init__(self, name: str, shard_sizes: Sequence[int], seed: int, parts: int = 1) -> None:
        self.name = name
        self.seed = seed
        self.parts = parts
        self._sizes = np.asarray(shard_sizes, dtype=np.int64)
        self.pairs = int(self._sizes.sum())
        assert self.pairs > 0, f"source {name!r} is empty"
        self.region = REGION if parts == 1 else _region_of(self.pairs // parts)
        self._epochs: Recent[_Moves] = Recent(2)
        self._regions: Recent[_Moves] = Recent(2 * parts)
        self._windows: Recent[NDArray[np.uint16]] = Recent(max(16, 2 * parts))

    def epoch_of(self, k: int) -> int:
        """How many times the whole source was given before draw ``k``."""
        return k // self.pairs

    def sample_at(self, k: int) -> int:
        """Index of draw ``k`` ≥ 0."""
        turn, part = divmod(k, self.parts)
        return int(self.samples(turn, turn + 1, part)[0][0])

    def samples(self, start: int, stop: int, part: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Index and epoch of the draws ``part`` + P·``start``, …, ``part`` + P·(``stop`` - 1), shapes (stop - start,).

        With one part these are the draws ``start`` … ``stop`` - 1.
        """
        found, epochs = [], []
        while start < stop:
            epoch, place = divmod(start * self.parts + part, self.pairs)
            position, end = self._stretch(place)
            window, offset = divmod(position, WINDOW)
            count = min(stop - start, end - position, WINDOW - offset)
            inside = self._windows.get((epoch, window), partial(self._window, epoch, window))
            positions = window * WINDOW + inside[offset : offset + count].astype(np.int64)
            # A window lies within one region, because a region is a multiple of WINDOW.
            region = window * WINDOW // self.region
            blocks = self._regions.get((epoch, region), partial(self._region, epoch, region))
            positions += blocks.shifts[np.searchsorted(blocks.ends, positions - region * self.region, side="right")]
            shards = self._epochs.get(epoch, partial(self._epoch, epoch))
            found.append(positions + shards.shifts[np.searchsorted(shards.ends, positions, side="right")])
            epochs.append(np.full(count, epoch, dtype=np.int64))
            start += count
        empty = np.empty(0, dtype=np.int64)
        return np.concatenate([empty, *found]), np.concatenate([empty, *epochs])

    def _stretch(self, place: int) -> tuple[int, int]:
        """The position of number ``place`` of an epoch, and where the part of this position ends."""
        turn, part = divmod(place, self.parts)
        size, longer = divmod(self.pairs, self.parts)
        return part * size + min(part, longer) + turn, (part + 1) * size + min(part + 1, longer)

    def _window(self, epoch: int, window: int) -> NDArray[np.uint16]:
        length = min(WINDOW, self.pairs - window * WINDOW)
        return shuffled(length, derive_seed(self.seed, "window", self.name, epoch, window)).astype(np.uint16)

    def _region(self, epoch: int, region: int) -> "_Moves":
        length = min(self.region, self.pairs - region * self.region)
        sizes = np.diff(np.append(np.arange(0, length, BLOCK), length))
        return _moves(sizes, derive_seed(self.seed, "blocks", self.name, epoch, region))

    def _epoch(self, epoch: int) -> "_Moves":
        return _moves(self._sizes, derive_seed(self.seed, "shards", self.name, epoch))


def _region_of(part: int) -> int:
    """The largest WINDOW times a power of two that is at most an eighth of ``part``; one WINDOW at least."""
    return min(REGION, WINDOW << max(0, (part // (8 * WINDOW)).bit_length() - 1))


class _Moves(NamedTuple):
    """Pieces laid end to end in another order: where each one ends, and its old position minus its new one."""

    ends: NDArray[np.int64]
    shifts: NDArray[np.int64]


def _moves(sizes: NDArray[np.int64], seed: int) -> _Moves:
    order = shuffled(len(sizes), seed)
    ends = np.cumsum(sizes[order])
    starts = np.cumsum(sizes) - sizes
    return _Moves(ends, starts[order] - (ends - sizes[order]))
