"""Master weights that DeepSpeed's NVMe offload keeps in files: which file holds which vector.

DeepSpeed copies its swap files into a checkpoint and records nowhere what is in them, so their order is written beside.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from optical_scale.errors import CheckpointError

INDEX = "offloaded.json"
_FOLDER = "offloaded_tensors"  # DeepSpeed's name


class OffloadedVector:
    """One flat fp32 vector in a file of its own.

    Attributes:
        path: the file.
        shape: an empty tensor of the vector's shape.

    Args:
        path: the file; behind the vector DeepSpeed pads it to whole blocks.
        elements: of the vector.

    Raises:
        CheckpointError: the file is missing or shorter than that.
    """

    def __init__(self, path: Path, elements: int) -> None:
        self.path = path
        self.shape = torch.empty(elements, device="meta")
        found = path.stat().st_size if path.is_file() else 0
        if found < 4 * elements:
            raise CheckpointError(
                f"{path} has {found:,} bytes; expected at least {4 * elements:,}, copy it again from where it is whole"
            )

    def read(self, tensor: Tensor, start: int, stop: int) -> Tensor:
        """Elements ``start`` to ``stop``; ``tensor`` is :attr:`shape`."""
        return torch.from_file(str(self.path), size=tensor.numel())[start:stop].clone()


def write_index(folder: Path, optimizer: Any) -> None:
    """Record in ``folder`` the file and size of each vector that the ZeRO-3 ``optimizer`` keeps in files.

    Files have the same names on all ranks, so one rank writes.
    """
    vectors = optimizer.fp32_partitioned_groups_flat
    sizes = optimizer.fp16_partitioned_groups_flat_numel
    entries = [
        {"file": f"{vector.ds_id}.tensor.swp", "elements": size} if vector.numel() == 0 else None
        for vector, size in zip(vectors, sizes, strict=True)
    ]
    (folder / INDEX).write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")


def offloaded_vectors(folder: Path, rank: int, count: int) -> list[OffloadedVector | None]:
    """The vectors of one rank that lie in files, None in the place of those that do not.

    Raises:
        CheckpointError: as :class:`OffloadedVector`, or the files are there without an index.
    """
    if not (folder / INDEX).is_file():
        if (folder / _FOLDER).is_dir():
            raise CheckpointError(
                f"{folder} has {_FOLDER}/ and no {INDEX}; expected what this project's training saves"
            )
        return [None] * count
    entries = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    below = folder / _FOLDER / f"rank{rank:02d}"
    return [entry and OffloadedVector(below / entry["file"], entry["elements"]) for entry in entries]
