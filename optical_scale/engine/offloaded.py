"""Master weights and moments that DeepSpeed's NVMe offload keeps in files: which file holds which vector.

DeepSpeed copies its swap files into a checkpoint and records nowhere what is in them, so their order is written beside.
On the way back it copies them and forgets the rest: that the moments exist, the counters of updates, and all that is
too small for a file; `load` does that.
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


def uses_files(engine: Any) -> bool:
    """Whether DeepSpeed keeps the optimizer or the parameters of ``engine`` in files."""
    zero = engine._config.zero_config
    offloads = (zero.offload_optimizer, zero.offload_param)
    return any(how is not None and how.device == "nvme" for how in offloads)


def load(engine: Any, folder: Path, tag: str) -> Path | None:
    """``engine.load_checkpoint`` for an engine that keeps something in files; None if there is no such checkpoint.

    DeepSpeed 0.19.8 copies the files back, but leaves AdamW without moments and with counters of 0, and with parameters
    in files alone it fails; so its own loading of ZeRO shards is left out.
    """
    engine._load_zero_checkpoint = lambda *_, **__: True
    path, _ = engine.load_checkpoint(str(folder), tag=tag)
    if path is None:
        return None
    optimizer = engine.optimizer
    shard = engine._get_zero_ckpt_name(str(folder), tag)
    saved = torch.load(shard, map_location="cpu", weights_only=False)["optimizer_state_dict"]
    optimizer.loss_scaler = saved["loss_scaler"]
    optimizer.dynamic_loss_scale = saved["dynamic_loss_scale"]
    optimizer._set_fp32_optimizer_param_groups()
    optimizer.optimizer.load_state_dict(saved["optimizer_state_dict"])
    optimizer._clear_fp32_optimizer_param_groups()
    optimizer.checkpoint_event_prologue()  # parameters that stay whole are split, and gathered anew below
    for group, kept in enumerate(saved["fp32_flat_groups"]):
        if optimizer._swappable_optimizer_subgroup(group):
            _announce_moments(optimizer, optimizer.fp32_partitioned_groups_flat[group])
        else:
            optimizer.fp32_partitioned_groups_flat[group].data.copy_(kept)
            optimizer._reassign_or_swap_out_partitioned_parameters(group)
    optimizer.checkpoint_event_epilogue()
    return Path(path)


def _announce_moments(optimizer: Any, master: Any) -> None:
    """Tell DeepSpeed's swapper of the moments that lie in files beside the ``master`` weights."""
    state = optimizer.optimizer.state.get(master, {})  # empty before the first update
    moments = [(name, value) for name, value in state.items() if isinstance(value, Tensor) and value.numel() == 0]
    for name, value in moments:
        value.ds_id = f"{name}-{master.ds_id}"  # type: ignore[attr-defined]
    if moments:
        swapped = optimizer.optimizer_swapper.swap_params_info[master.ds_id]
        swapped.add_state_tensors([value for _, value in moments])


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
