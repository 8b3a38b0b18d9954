"""ZeRO shards back to whole tensors, in pieces of a few mebibytes.

DeepSpeed's own converter maps and copies whole models; here no more than a piece of one tensor is in memory, whatever
the stage. The layouts are those of DeepSpeed 0.19:

- stage 0: whole tensors in ``mp_rank_00_model_states.pt``;
- stages 1 and 2: each group's fp32 master weights are one flat vector, cut into one part per rank;
- stage 3: each parameter is flattened, padded and cut into one part per rank; a rank's parts follow each other in its
  flat vectors. Frozen parameters are cut the same way and stand in the files of model states. With the optimizer on
  NVMe, vectors are empty there and lie in files of their own, which ``offloaded.json`` names.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optical_scale.engine.archive import Archive, Foreign
from optical_scale.engine.frozen import read_frozen
from optical_scale.engine.offloaded import OffloadedVector, offloaded_vectors
from optical_scale.engine.student import TAG
from optical_scale.errors import CheckpointError

PIECE = 1 << 20
"""Elements of a piece: 4 MiB in fp32, which caches hold from the checksum to the write."""


class _Run(NamedTuple):
    """Elements ``start`` to ``stop`` of one stored tensor."""

    archive: Archive | OffloadedVector
    tensor: Tensor
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A parameter or persistent buffer, still on disk.

    Attributes:
        names: its name, then those of parameters tied to it.
        shape: of the whole.
        dtype: of its pieces; floating-point tensors come as fp32.
        runs: where its elements are, in order.
        digest: SHA-256 of the elements as fp32, recorded of frozen parameters.
    """

    names: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: torch.dtype
    runs: tuple[_Run, ...]
    digest: str | None = None

    def pieces(self) -> Iterator[Tensor]:
        """The elements in order, flat, at most :data:`PIECE` at a time; each is gone when the next one comes.

        Raises:
            CheckpointError: after the last one, if a frozen parameter is not what the checkpoint recorded.
        """
        found = hashlib.sha256()
        for archive, tensor, start, stop in self.runs:
            for first in range(start, stop, PIECE):
                piece = archive.read(tensor, first, min(first + PIECE, stop)).to(self.dtype)
                if self.digest is not None:
                    found.update(piece.numpy().data)
                yield piece
        if self.digest is not None and found.hexdigest() != self.digest:
            raise CheckpointError(
                f"{self.runs[0].archive.path}: frozen parameter {self.names[0]} has other values than training "
                "recorded; use another checkpoint"
            )

    def read(self) -> Tensor:
        """The whole tensor."""
        whole = torch.empty(self.shape, dtype=self.dtype)
        flat, position = whole.view(-1), 0
        for piece in self.pieces():
            flat[position : position + len(piece)] = piece
            position += len(piece)
        return whole


class StoredModel:
    """The student in a checkpoint.

    Attributes:
        tensors: all parameters and persistent buffers. Reading them in this order reads every file once, front to back.

    Args:
        checkpoint: a step folder; DeepSpeed's files are in its ``student/``.

    Raises:
        CheckpointError: files are missing, damaged or of a layout that is not supported, or a tensor has no elements.
    """

    def __init__(self, checkpoint: Path) -> None:
        folder = checkpoint / TAG
        states = sorted(folder.glob("*_model_states.pt"), key=_by_rank)
        if not states:
            raise CheckpointError(
                f"{folder} holds no *_model_states.pt; expected what DeepSpeed's save_checkpoint writes"
            )
        if other := [path.name for path in states if "mp_rank_00" not in path.name]:
            raise CheckpointError(f"{folder} is of a tensor-parallel run ({other[0]}); expected data parallelism alone")
        optimizers = sorted(folder.glob("*_optim_states.pt"), key=_by_rank)
        self._archives = [Archive(path) for path in [*states, *optimizers]]
        try:
            self.tensors = _tensors(folder, self._archives[: len(states)], self._archives[len(states) :])
        except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
            raise CheckpointError(
                f"{folder} was not written by this project's training: {error!r}; expected DeepSpeed 0.19's layout"
            ) from error
        recorded = read_frozen(folder)
        if lost := set(recorded) - {name for stored in self.tensors for name in stored.names}:
            raise CheckpointError(f"{folder}: frozen parameter {min(lost)} is recorded but not stored; copy it again")
        self.tensors = [replace(stored, digest=recorded.get(stored.names[0])) for stored in self.tensors]
        for stored in self.tensors:
            if 0 in stored.shape:
                raise CheckpointError(
                    f"{folder}: tensor {stored.names[0]} has 0 elements; the checkpoint lacks its values"
                )

    def finish(self) -> None:
        """Call after the last tensor was read.

        Raises:
            CheckpointError: data has changed since the checkpoint was written.
        """
        for archive in self._archives:
            archive.finish()


def _tensors(folder: Path, states: Sequence[Archive], optimizers: Sequence[Archive]) -> list[StoredTensor]:
    first = states[0].content
    module: Mapping[str, Tensor] = first["module"]
    tied: dict[str, str] = dict(first.get("shared_params") or {})
    stage = 0
    if optimizers:
        # DeepSpeed's optimizer for bf16 at stages 0 and 1 writes stage 1's layout and no number.
        stage = _plain(optimizers[0].content["optimizer_state_dict"].get("zero_stage", 1))
        _check_ranks(folder, states, optimizers, stage)
    elif states[0].path.name.startswith("zero"):
        raise CheckpointError(f"{folder} has no *_optim_states.pt files, which hold the weights at ZeRO stage 3")
    runs: dict[str, tuple[tuple[int, ...], tuple[_Run, ...]]] = {}
    if stage == 3:
        runs |= _frozen(states)
        runs |= _stage_3(folder, first["param_shapes"], optimizers)
    elif stage:
        runs |= _stages_1_and_2(folder, first["param_shapes"], optimizers)
    buffers = set(first["buffer_names"])
    for name, tensor in module.items():
        # At stages 1 and 2 the module's own copy has the frozen parameters; at stage 3 it has no values.
        if name not in runs and name not in tied and (stage < 3 or name in buffers):
            runs[name] = (tuple(tensor.shape), (_Run(states[0], tensor, 0, tensor.numel()),))
    return list(_named(runs, tied))


def _named(
    runs: Mapping[str, tuple[tuple[int, ...], tuple[_Run, ...]]], tied: Mapping[str, str]
) -> Iterator[StoredTensor]:
    aliases: dict[str, list[str]] = {}
    for alias, owner in tied.items():
        aliases.setdefault(owner, []).append(alias)
    for name, (shape, parts) in runs.items():
        stored = parts[0].tensor.dtype
        dtype = torch.float32 if stored.is_floating_point else stored
        yield StoredTensor((name, *aliases.get(name, ())), shape, dtype, parts)


def _check_ranks(folder: Path, states: Sequence[Archive], optimizers: Sequence[Archive], stage: int) -> None:
    count = optimizers[0].content["optimizer_state_dict"]["partition_count"]
    ranks = max(count) if isinstance(count, list) else count
    found = min(len(optimizers), len(states)) if stage == 3 else len(optimizers)
    if found != ranks or len(optimizers) != ranks:
        raise CheckpointError(
            f"{folder} holds the shards of {found} ranks, {ranks} wrote it; copy the missing files, or use another "
            "checkpoint"
        )


def _stage_3(
    folder: Path, shapes: Iterable[Mapping[str, torch.Size]], optimizers: Sequence[Archive]
) -> dict[str, tuple[tuple[int, ...], tuple[_Run, ...]]]:
    flats = [
        [
            (offloaded, offloaded.shape) if offloaded else (archive, flat)
            for flat, offloaded in zip(groups, offloaded_vectors(folder, rank, len(groups)), strict=True)
        ]
        for rank, archive in enumerate(optimizers)
        for groups in [archive.content["optimizer_state_dict"]["fp32_flat_groups"]]
    ]
    sizes = [[flat.numel() for _, flat in groups] for groups in flats]
    found: dict[str, tuple[tuple[int, ...], tuple[_Run, ...]]] = {}
    offset = 0
    for name, shape in ((name, shape) for group in shapes for name, shape in group.items()):
        share = -(-shape.numel() // len(optimizers))
        parts: list[_Run] = []
        left = shape.numel()
        for groups in flats:
            parts += _cut(groups, offset, offset + min(share, left))
            left -= min(share, left)
        found[name] = (tuple(shape), tuple(parts))
        offset += share
    if any(sum(size) != offset for size in sizes):
        raise CheckpointError(f"{folder}: the shards hold {sizes} elements, their parameters need {offset:,} each")
    return found


def _frozen(states: Sequence[Archive]) -> dict[str, tuple[tuple[int, ...], tuple[_Run, ...]]]:
    found = {}
    for name, shape in (states[0].content.get("frozen_param_shapes") or {}).items():
        left = shape.numel()
        parts = []
        for archive in states:
            fragment = archive.content["frozen_param_fragments"][name]
            parts.append(_Run(archive, fragment, 0, min(left, fragment.numel())))
            left -= min(left, fragment.numel())
        found[name] = (tuple(shape), tuple(parts))
    return found


def _stages_1_and_2(
    folder: Path, shapes: Iterable[Mapping[str, torch.Size]], optimizers: Sequence[Archive]
) -> dict[str, tuple[tuple[int, ...], tuple[_Run, ...]]]:
    states = [archive.content["optimizer_state_dict"] for archive in optimizers]
    paddings = states[0].get("param_alignment_paddings")
    found: dict[str, tuple[tuple[int, ...], tuple[_Run, ...]]] = {}
    for number, group in enumerate(shapes):
        flats = [state["single_partition_of_fp32_groups"][number] for state in states]
        available = sum(flat.numel() for flat in flats)
        offset = 0
        for position, (name, shape) in enumerate(group.items()):
            parts: list[_Run] = []
            start = 0
            for archive, flat in zip(optimizers, flats, strict=True):
                first, last = max(offset - start, 0), min(offset + shape.numel() - start, flat.numel())
                if first < last:
                    parts.append(_Run(archive, flat, first, last))
                start += flat.numel()
            found[name] = (tuple(shape), tuple(parts))
            offset += shape.numel() + (paddings[number][position] if paddings else 0)
        if offset > available + (paddings[number][-1] if paddings else 0):
            raise CheckpointError(
                f"{folder}: group {number} has {available:,} elements, its parameters need {offset:,}"
            )
    return found


def _cut(groups: Sequence[tuple[Archive | OffloadedVector, Tensor]], start: int, stop: int) -> Iterator[_Run]:
    """The runs of elements ``start`` to ``stop`` of vectors that count as joined."""
    before = 0
    for archive, flat in groups:
        first, last = max(start - before, 0), min(stop - before, flat.numel())
        if first < last:
            yield _Run(archive, flat, first, last)
        before += flat.numel()


def _plain(value: Any) -> int:
    """The number inside an enumeration that was not rebuilt."""
    return int(value.args[0] if isinstance(value, Foreign) else value)


def _by_rank(path: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", path.name)]
