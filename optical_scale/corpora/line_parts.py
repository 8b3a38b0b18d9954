"""A text file in parts of a few hundred lines, each of which can be read by itself and in another process."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from optical_scale.corpora.reader import decode_line
from optical_scale.errors import CorpusError

_PIECE_BYTES = 1 << 17


@dataclass(frozen=True, slots=True)
class LinePart:
    """Some lines of a file that is not compressed.

    Attributes:
        path: the file.
        start: offset of the first byte.
        end: offset behind the last byte.
        line: number of the first line, from 1.
        checksum: CRC-32 of the bytes.
    """

    path: Path
    start: int
    end: int
    line: int
    checksum: int

    def read(self) -> list[str]:
        """The lines, as :func:`optical_scale.corpora.reader.read_lines` gives them.

        Raises:
            CorpusError: the file has changed since it was divided, or is not UTF-8, with file and line.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(self.start)
                data = file.read(self.end - self.start)
        except OSError as error:
            raise CorpusError(f"{self.path}: cannot be read ({error.strerror}); was it removed meanwhile?") from None
        if zlib.crc32(data) != self.checksum:
            raise CorpusError(
                f"{self.path}: the bytes from {self.start:,} to {self.end:,} have changed while the file was read; "
                "wait until nothing writes to it, then try again"
            )
        raw = data.removesuffix(b"\n")
        try:
            lines = raw.decode("utf-8").split("\n")
        except UnicodeDecodeError:
            lines = [decode_line(line, self.path, self.line + i) for i, line in enumerate(raw.split(b"\n"))]
        if self.line == 1:
            lines[0] = lines[0].removeprefix("\ufeff")
        return [line.removesuffix("\r") for line in lines] if b"\r" in raw else lines


def line_parts(path: Path, lines: int) -> Iterator[LinePart]:
    """Divide a file into parts of so many lines, the last one shorter; reads it at the speed of the disk."""
    start, line, checksum, seen, offset = 0, 1, 0, 0, 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            ends = np.flatnonzero(np.frombuffer(piece, np.uint8) == ord("\n")) + 1
            done, view = 0, memoryview(piece)
            for end in ends[lines - 1 - seen :: lines].tolist():
                checksum = zlib.crc32(view[done:end], checksum)
                yield LinePart(path, start, offset + end, line, checksum)
                start, line, checksum, done = offset + end, line + lines, 0, end
            checksum = zlib.crc32(view[done:], checksum)
            seen = (seen + len(ends)) % lines
            offset += len(piece)
    if start < offset:
        yield LinePart(path, start, offset, line, checksum)
