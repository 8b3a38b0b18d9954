"""A set of digests on disk: membership of hundreds of millions of texts in a few megabytes of private memory."""

import mmap
import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from optical_scale.errors import CorpusError

_LOAD = 0.6
_SLOT_BYTES = 8


class SeenDigests:
    """64-bit digests in an open-addressing table that lies in an unnamed temporary file.

    The operating system keeps as much of the file in memory as it can spare and writes back the rest, so a table
    beyond the memory gets slower, not fatal. A killed process leaves nothing behind.

    Args:
        capacity: most digests that will be added; 13.3 bytes of disk each.
        folder: where the file lies; None takes the system's folder of temporary files.

    Raises:
        CorpusError: the folder has no room.
    """

    def __init__(self, capacity: int, folder: Path | None = None) -> None:
        self._free = max(capacity, 1)
        self._slots = int(self._free / _LOAD) + 1
        size = self._slots * _SLOT_BYTES
        try:
            with tempfile.TemporaryFile(dir=folder) as file:  # the mapping keeps it alive
                # Reserved now: a disk that is full later would end the process by a signal, without a message.
                os.posix_fallocate(file.fileno(), 0, size)
                self._map = mmap.mmap(file.fileno(), size)
        except OSError as error:
            raise CorpusError(
                f"{folder or tempfile.gettempdir()}: no room for {size / 1e9:.1f} GB that finding duplicates among "
                f"{capacity:,} texts takes ({error.strerror}); make room, or do not look for duplicates"
            ) from None
        self._table = memoryview(self._map).cast("Q")

    def add(self, digest: int) -> bool:
        """Add a digest; True if it was not there.

        Raises:
            CorpusError: the capacity is used up, so the caller counted its texts wrongly.
        """
        digest = digest or 1  # 0 marks a free slot
        table, slots = self._table, self._slots
        slot = digest % slots
        while found := table[slot]:
            if found == digest:
                return False
            slot = slot + 1 if slot + 1 < slots else 0
        if not self._free:
            raise CorpusError("more texts than were counted at the start; did a file grow during the conversion?")
        self._free -= 1
        table[slot] = digest
        return True

    def __contains__(self, digest: int) -> bool:
        """Whether a digest was added; adds nothing."""
        digest = digest or 1
        table, slots = self._table, self._slots
        slot = digest % slots
        while found := table[slot]:
            if found == digest:
                return True
            slot = slot + 1 if slot + 1 < slots else 0
        return False

    def close(self) -> None:
        """Give the disk space back."""
        self._table.release()
        self._map.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
