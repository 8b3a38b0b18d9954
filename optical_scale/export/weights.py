"""safetensors files written a piece at a time, so that no tensor is ever whole in memory.

The library's own writer wants all tensors of a file at once. The format is a length (8 bytes, little endian), a JSON
header and the data without gaps; the library reads the result back when the export is verified.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from optical_scale.engine.consolidate import StoredTensor
from optical_scale.errors import ExportError
from optical_scale.export.adapters import MergedTensor
from optical_scale.runtime.files import write_json

_NAMES = {
    torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64", torch.int32: "I32",
    torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Weight:
    """A tensor of the export.

    Attributes:
        name: in the file.
        stored: where its elements are.
        dtype: of the file, if they are floating-point numbers.
        rows_R: bool, the rows to keep; None keeps all.
    """

    name: str
    stored: StoredTensor | MergedTensor
    dtype: torch.dtype
    rows_R: Tensor | None = None

    @property
    def file_dtype(self) -> torch.dtype:
        """What is written."""
        return self.dtype if self.stored.dtype.is_floating_point else self.stored.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """What is written."""
        rows = self.stored.shape if self.rows_R is None else (int(self.rows_R.sum()), *self.stored.shape[1:])
        return tuple(rows)

    @property
    def elements(self) -> int:
        """Number of elements written."""
        return torch.Size(self.shape).numel()

    @property
    def bytes(self) -> int:
        """Size of what is written."""
        return self.elements * self.file_dtype.itemsize

    def pieces(self) -> Iterator[Tensor]:
        """What is written, flat, in order.

        Raises:
            ExportError: a value is not finite, or becomes so in :attr:`dtype`.
        """
        width = torch.Size(self.stored.shape[1:]).numel()
        position = 0
        for piece in self.stored.pieces():
            after = position + piece.numel()
            kept = piece if self.rows_R is None else piece[self._kept(position, after, width)]
            position = after
            cast = kept.to(self.file_dtype)
            if not _finite(cast):
                cause = f"in {self.dtype}" if _finite(kept) else "in the checkpoint"
                raise ExportError(
                    f"tensor {self.name} is not finite {cause}; export in float32, or an earlier checkpoint"
                )
            yield cast

    def _kept(self, first: int, after: int, width: int) -> Tensor:
        """Which of the elements ``first`` to ``after`` are in kept rows, bool."""
        assert self.rows_R is not None
        top, bottom = first // width, -(-after // width)
        return self.rows_R[top:bottom].repeat_interleave(width)[first - top * width : after - top * width]


def _finite(values: Tensor) -> bool:
    """Ten times as fast as torch.isfinite; both extremes are NaN if any value is."""
    if not values.is_floating_point() or not values.numel():
        return True
    return bool(torch.isfinite(torch.stack(torch.aminmax(values))).all())


def plan_files(weights: Sequence[Weight], max_bytes: int) -> dict[str, list[Weight]]:
    """File names of transformers' scheme with their tensors; a file ends before it exceeds ``max_bytes``."""
    files: list[list[Weight]] = [[]]
    size = 0
    for weight in weights:
        if files[-1] and size + weight.bytes > max_bytes:
            files.append([])
            size = 0
        files[-1].append(weight)
        size += weight.bytes
    count = len(files)
    if count == 1:
        return {"model.safetensors": files[0]}
    return {f"model-{number:05d}-of-{count:05d}.safetensors": file for number, file in enumerate(files, 1)}


def write_files(folder: Path, files: dict[str, list[Weight]]) -> None:
    """Write every file, and the index if there are several.

    Raises:
        ExportError: a value is not finite.
        CheckpointError: a shard cannot be read.
    """
    for name, weights in files.items():
        write_file(folder / name, weights)
    if len(files) > 1:
        index = {
            "metadata": {"total_size": sum(weight.bytes for weights in files.values() for weight in weights)},
            "weight_map": {weight.name: name for name, weights in files.items() for weight in weights},
        }
        write_json(folder / "model.safetensors.index.json", index)


def write_file(path: Path, weights: Sequence[Weight]) -> None:
    """Write one file.

    Raises:
        ExportError: a value is not finite, or safetensors has no name for its type.
    """
    if wrong := [weight for weight in weights if weight.file_dtype not in _NAMES]:
        raise ExportError(f"tensor {wrong[0].name} is of {wrong[0].file_dtype}, which safetensors files do not hold")
    # Wide types first, so that every tensor starts at a multiple of its element size.
    ordered = sorted(weights, key=lambda weight: -weight.file_dtype.itemsize)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for weight in ordered:
        header[weight.name] = {
            "dtype": _NAMES[weight.file_dtype],
            "shape": list(weight.shape),
            "data_offsets": [offset, offset + weight.bytes],
        }
        offset += weight.bytes
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for weight in ordered:
            for piece in weight.pieces():
                if piece.numel():
                    file.write(piece.view(torch.uint8).numpy().data)
        assert file.tell() == 8 + len(encoded) + offset, "the pieces of a tensor are its elements"
