"""Where each sample of a shard lies: ``{shard}.index``, 16 bytes per sample after a 16-byte mark.

An entry is offset (uint64), size (uint32) and CRC-32 (uint32) of the sample's tar members, little-endian. It finds
sample i without scanning the tar, and the checksum exposes damage at the moment of reading, long after the shard's
SHA-256 was last compared.
"""

import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MARK = b"optical-index-1\n"
_ENTRY = struct.Struct("<QII")
_ENTRIES = np.dtype([("offset", "<u8"), ("size", "<u4"), ("checksum", "<u4")])
ENTRY_BYTES = _ENTRY.size


class IndexEntry(NamedTuple):
    """Place of one sample in its tar, in bytes, and the CRC-32 of these bytes."""

    offset: int
    size: int
    checksum: int

    @classmethod
    def of(cls, offset: int, sample: bytes) -> "IndexEntry":
        """Entry of the bytes of ``sample`` at ``offset``."""
        return cls(offset, len(sample), zlib.crc32(sample))

    @classmethod
    def unpack(cls, index: bytes, position: int = 0) -> "IndexEntry":
        """Entry from the 16 bytes at ``position``."""
        return cls(*_ENTRY.unpack_from(index, position))

    def pack(self) -> bytes:
        """The 16 bytes of the entry."""
        return _ENTRY.pack(*self)


def index_entries(start: int, sizes_N: NDArray[np.int64], checksums_N: NDArray[np.uint32]) -> bytes:
    """Entries of samples that follow one another from offset ``start``."""
    entries_N = np.empty(len(sizes_N), _ENTRIES)
    entries_N["offset"] = start + np.cumsum(sizes_N) - sizes_N
    entries_N["size"], entries_N["checksum"] = sizes_N, checksums_N
    return entries_N.tobytes()


def index_path(shard: Path) -> Path:
    """Name of the index beside a shard."""
    return shard.with_name(f"{shard.name}.index")


def index_bytes(samples: int) -> int:
    """Size of the index of a shard with so many samples."""
    return len(MARK) + ENTRY_BYTES * samples


def entry_position(sample: int) -> int:
    """Where the entry of sample i starts in the index."""
    return len(MARK) + ENTRY_BYTES * sample
