"""What the stream needs to know about stored samples."""

from typing import Protocol

from optical_scale.errors import StreamError
from optical_scale.records import Record

PIECE = 4096
"""Samples that are shuffled as a unit when a source does not say where its files begin."""


class Source(Protocol):
    """A corpus part with random access: one language, any number of files.

    A source may also have ``shard_sizes``, a sequence of the number of samples in each of its files in index order;
    see :func:`shard_sizes`. A source must be picklable, and safe to read after the process forks: worker processes
    that share an open file share its position, so open files lazily per process or read with ``os.pread``.
    """

    @property
    def name(self) -> str:
        """Unique among the sources of a run; seeds this source's order."""

    @property
    def language(self) -> str:
        """BCP-47 tag that decides how often the source is drawn."""

    def __len__(self) -> int:
        """Number of samples."""

    def __getitem__(self, index: int) -> Record:
        """Sample ``index`` in stored order; raises ShardError when it cannot be read."""


def shard_sizes(source: Source) -> tuple[int, ...]:
    """Samples per file of ``source``, or pieces of :data:`PIECE` samples where it has no ``shard_sizes``.

    Raises:
        StreamError: the sizes do not add up to the source's length.
    """
    pairs = len(source)
    sizes = getattr(source, "shard_sizes", None)
    if sizes is None:
        return tuple(min(PIECE, pairs - start) for start in range(0, pairs, PIECE))
    sizes = tuple(int(size) for size in sizes)
    if sum(sizes) != pairs or any(size < 0 for size in sizes):
        raise StreamError(
            f"source {source.name!r} has {pairs:,} samples but its {len(sizes):,} shards hold {sum(sizes):,}; "
            "verify the shards against their manifest"
        )
    return sizes
