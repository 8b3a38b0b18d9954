"""Zstandard files as a stream that notices when its end is missing."""

import io
from typing import Any

from typing_extensions import Buffer

from optical_scale.errors import CorpusError

MAGIC = b"\x28\xb5\x2f\xfd"
_PIECE_BYTES = 1 << 17


def open_frames(file: io.BufferedIOBase, where: str) -> io.RawIOBase:
    """The unpacked bytes of one or more frames.

    Reading raises EOFError if the last frame is cut short (the library's own stream ends as if nothing were missing)
    and OSError if a frame is damaged.

    Raises:
        CorpusError: the optional package ``zstandard`` is not installed.
    """
    try:
        import zstandard
    except ImportError:
        raise CorpusError(
            f"{where}: compressed by zstd, for which the package `zstandard` is missing; "
            "install `optical-scale[corpora]`, or unpack the file"
        ) from None
    return _Frames(file, zstandard)


class _Frames(io.RawIOBase):
    def __init__(self, file: io.BufferedIOBase, library: Any) -> None:
        self._file, self._library = file, library
        self._frame = library.ZstdDecompressor().decompressobj()
        self._packed, self._ready = b"", memoryview(b"")
        self._between_frames = True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int:
        while not self._ready:
            if not self._packed:
                self._packed = self._file.read(_PIECE_BYTES)
            if not self._packed:
                if not self._between_frames:
                    raise EOFError("a frame is cut short")
                return 0
            self._unpack()
        view = memoryview(buffer).cast("B")
        size = min(len(view), len(self._ready))
        view[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size

    def _unpack(self) -> None:
        """Feed one piece; a small piece at a time bounds what a highly packed one can expand to."""
        try:
            self._ready = memoryview(self._frame.decompress(self._packed))
        except self._library.ZstdError as error:
            raise OSError(str(error)) from None
        self._packed = b""
        self._between_frames = self._frame.eof
        if self._frame.eof:
            self._packed = self._frame.unused_data
            self._frame = self._library.ZstdDecompressor().decompressobj()
