"""Token counts of stored samples, counted once and kept on disk.

Bucketing needs the lengths of pairs that other ranks will read, long before anybody reads them. A table per source
holds two numbers a sample, in parts of 65,536 samples; ranks count different parts, an interrupted count goes on with
the parts that are missing, and lookups map the files into memory.
"""

import io
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from optical_scale.errors import OpticalScaleError, StreamError
from optical_scale.records import Record
from optical_scale.runtime.files import write_atomic
from optical_scale.runtime.world import World
from optical_scale.stream.source import Source

PART = 65_536
_AT_ONCE = 1024

Measure = Callable[[Sequence[Record]], NDArray[np.int64]]
"""English and target tokens of each record, shape (n, 2), as the encoders will see them."""


class LengthTables:
    """The tables of all sources of a strand.

    Args:
        folder: where the tables lie; every rank must see the same one.
        sources: in the order of the mixture.
        digest: identifies what counts the tokens: tokenizers, prefixes, limits.
    """

    def __init__(self, folder: Path, sources: Sequence[Source], digest: str) -> None:
        self.folder = folder
        self.digest = digest
        self._sources = tuple(sources)
        self._parts: dict[Path, NDArray[np.uint32]] = {}

    def of(self, source: int, samples: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens of both sides of ``samples``, shape (n, 2).

        Raises:
            StreamError: they were not counted, or the file is damaged.
        """
        found = np.empty((len(samples), 2), dtype=np.int64)
        for part in np.unique(samples // PART).tolist():
            mine = samples // PART == part
            found[mine] = self._part(source, part)[samples[mine] - part * PART]
        return found

    def count(self, measure: Measure, world: World, *, tolerant: bool = False) -> int:
        """Count this rank's share of the missing parts; ranks wait for one another afterwards.

        Args:
            measure: counts the tokens of some records.
            world: this rank among all.
            tolerant: a sample that cannot be read or measured counts as one token on each side.

        Returns:
            Samples counted here.

        Raises:
            OpticalScaleError: a sample cannot be read, unless ``tolerant``.
        """
        counted = 0
        parts = [(number, part) for number, source in enumerate(self._sources) for part in range(_parts(len(source)))]
        for number, part in parts[world.rank :: world.size]:
            path = self._path(number, part)
            if path.exists():
                continue
            source = self._sources[number]
            indices = range(part * PART, min(len(source), (part + 1) * PART))
            pieces = [indices[start : start + _AT_ONCE] for start in range(0, len(indices), _AT_ONCE)]
            rows = np.concatenate([_measured(source, piece, measure, tolerant) for piece in pieces])
            file = io.BytesIO()
            np.save(file, rows.astype(np.uint32))
            write_atomic(path, file.getvalue())
            counted += len(indices)
        return counted

    def _part(self, source: int, part: int) -> NDArray[np.uint32]:
        path = self._path(source, part)
        if path not in self._parts:
            expected = (min(PART, len(self._sources[source]) - part * PART), 2)
            try:
                table = np.load(path, mmap_mode="r")
            except (OSError, ValueError) as error:
                raise StreamError(
                    f"{path}: token counts cannot be read ({error}); the folder must be one that all ranks see. "
                    "Delete the file and start again to count anew"
                ) from None
            if table.shape != expected or table.dtype != np.uint32:
                raise StreamError(
                    f"{path}: token counts of shape {table.shape}, expected {expected}; delete the file, they are "
                    "counted again"
                )
            self._parts[path] = table
        return self._parts[path]

    def _path(self, source: int, part: int) -> Path:
        name = f"{self._sources[source].name} {self.digest}"
        return self.folder / blake2b(name.encode(), digest_size=10).hexdigest() / f"{part:06d}.npy"


def _parts(samples: int) -> int:
    return -(-samples // PART)


def _measured(source: Source, indices: range, measure: Measure, tolerant: bool) -> NDArray[np.int64]:
    try:
        return measure([source[index] for index in indices])
    except OpticalScaleError:
        if not tolerant:
            raise
        if len(indices) == 1:
            return np.ones((1, 2), dtype=np.int64)
    middle = len(indices) // 2
    return np.concatenate([_measured(source, half, measure, tolerant) for half in (indices[:middle], indices[middle:])])
