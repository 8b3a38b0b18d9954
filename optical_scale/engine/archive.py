"""What ``torch.save`` wrote, read a piece at a time: structure without data, data by ranges, checksums on the way.

Neither memory-mapping nor unpickling: mapped pages count as the process's memory, and a pickle may run anything. Here
only containers, numbers and tensors are rebuilt; an object of any other class becomes an inert :class:`Foreign`.
"""

import collections
import os
import pickle
import types
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from optical_scale.errors import CheckpointError

_UNREADABLE = (
    OSError, RuntimeError, ValueError, EOFError, LookupError, TypeError, AttributeError,
    pickle.UnpicklingError, zipfile.BadZipFile,
)  # fmt: skip
_GAP_BYTES = 1 << 20
_LOCAL_HEADER_BYTES = 30
_KNOWN = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("builtins", "set"): set,
    ("torch", "Size"): torch.Size,
    ("torch", "Tensor"): torch.Tensor,
    ("torch.nn.parameter", "Parameter"): torch.nn.Parameter,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): torch._utils._rebuild_parameter_with_state,
    ("torch._tensor", "_rebuild_from_type_v2"): torch._tensor._rebuild_from_type_v2,
}


class Foreign:
    """Stands for an object of a class that tensors do not need; keeps its constructor's arguments."""

    def __init__(self, *args: Any) -> None:
        self.args = args

    def __setstate__(self, state: Any) -> None:
        self.args = (*getattr(self, "args", ()), state)

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        """Accept what a pickle puts into its list."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        known = getattr(torch, name, None) if module == "torch" else None
        return known if isinstance(known, torch.dtype) else _KNOWN.get((module, name), Foreign)


class Span(NamedTuple):
    """Bytes ``start`` to ``stop`` (exclusive) of the storage that begins at ``offset`` of the archive's file."""

    offset: int
    start: int
    stop: int


class Archive:
    """One file of ``torch.save``.

    Attributes:
        content: what was saved; its tensors have shapes and no data.

    Args:
        path: the file.

    Raises:
        CheckpointError: it is missing, cut short, or no such file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._buffer = torch.empty(0, dtype=torch.uint8)
        reader = types.SimpleNamespace(__name__=__name__, Unpickler=_Unpickler)
        try:
            with FakeTensorMode():
                self.content: Any = torch.load(path, pickle_module=reader, weights_only=False)
            self._file = path.open("rb", buffering=0)
            self._checks = _checksums(path, self._file.fileno())
        except _UNREADABLE as error:
            raise self._unreadable(error) from error

    def read(self, tensor: Tensor, start: int, stop: int) -> Tensor:
        """Elements ``start`` to ``stop`` of a contiguous tensor of :attr:`content`, flat, with their data.

        The result holds them until the next call: new memory each time would cost more than reading, because the
        kernel clears every page first.

        Raises:
            CheckpointError: the file cannot be read that far.
        """
        if not tensor.is_contiguous():
            raise self._unreadable(ValueError(f"a tensor of shape {tuple(tensor.shape)} has gaps between its rows"))
        size = tensor.element_size()
        if self._buffer.numel() < (stop - start) * size:
            self._buffer = torch.empty((stop - start) * size, dtype=torch.uint8)
        data = self._buffer[: (stop - start) * size].view(tensor.dtype)
        if start < stop:
            first = int(tensor.storage_offset()) + start
            offset = tensor.untyped_storage()._checkpoint_offset
            assert offset is not None, "content was loaded in fake mode"
            self._fill(Span(offset, first * size, (first + stop - start) * size), data.view(torch.uint8).numpy().data)
        return data

    def finish(self) -> None:
        """Read what is left of every storage that was begun, and compare the checksums that the file records.

        Raises:
            CheckpointError: data has changed since the file was written.
        """
        for offset, check in self._checks.items():
            if check.position:
                self._skip(offset, check.bytes)
                if check.found != check.expected:
                    raise CheckpointError(
                        f"{self.path} is damaged: the checksum of the tensor data at byte {offset:,} is "
                        f"{check.found:08x}, expected {check.expected:08x}; copy the file again, or use another "
                        "checkpoint"
                    )
        self._file.close()

    def _fill(self, span: Span, buffer: memoryview) -> None:
        check = self._checks.get(span.offset)
        if check is None or span.stop > check.bytes:
            raise self._unreadable(ValueError(f"no {span.stop:,} bytes of tensor data at byte {span.offset:,}"))
        if span.start > check.position:
            self._skip(span.offset, span.start)
        filled = 0
        while filled < len(buffer):
            count = os.preadv(self._file.fileno(), [buffer[filled:]], span.offset + span.start + filled)
            if not count:
                raise self._unreadable(EOFError("it ends within its tensor data"))
            filled += count
        if span.start == check.position:
            check.found = zlib.crc32(buffer, check.found)
            check.position = span.stop

    def _skip(self, offset: int, stop: int) -> None:
        """Read up to ``stop`` for the checksum alone."""
        check = self._checks[offset]
        while check.position < stop:
            start = check.position
            count = min(_GAP_BYTES, stop - start)
            self._fill(Span(offset, start, start + count), memoryview(bytearray(count)))

    def _unreadable(self, error: Exception) -> CheckpointError:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return CheckpointError(f"{self.path} cannot be read: {reason}; copy it again, or use another checkpoint")


class _Check:
    """The checksum of one storage, formed from front to back."""

    def __init__(self, size: int, expected: int) -> None:
        self.bytes = size
        self.expected = expected
        self.position = 0
        self.found = 0


def _checksums(path: Path, descriptor: int) -> dict[int, _Check]:
    """The zip directory's checksums, by the place of their data."""

    def entries() -> Iterator[tuple[int, _Check]]:
        with zipfile.ZipFile(path) as archive:
            for item in archive.infolist():
                header = os.pread(descriptor, _LOCAL_HEADER_BYTES, item.header_offset)
                names = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
                yield item.header_offset + _LOCAL_HEADER_BYTES + names, _Check(item.file_size, item.CRC)

    return dict(entries())
