"""The few exchanges between ranks that are needed beside DeepSpeed's own; each is the identity on one process."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from optical_scale.errors import EngineError


def _many() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def sum_over_ranks(values: Tensor) -> Tensor:
    """Element-wise sum over all ranks; a new tensor without gradient."""
    total = values.detach().clone()
    if _many():
        dist.all_reduce(total)
    return total


def any_rank(flag: bool, device: torch.device | str = "cpu") -> bool:
    """True on every rank when any rank says so: the one way ranks agree to stop, skip or fail together."""
    return bool(sum_over_ranks(torch.tensor([float(flag)], device=device)).item())


@contextmanager
def agree_on_errors(what: str, device: torch.device | str = "cpu") -> Iterator[None]:
    """Leave the block together: if it fails on some rank, it fails on all, so that none waits for another in vain.

    Raises:
        EngineError: on the ranks where the block succeeded, when it failed elsewhere.
    """
    try:
        yield
    except Exception:
        any_rank(True, device)
        raise
    if any_rank(False, device):
        raise EngineError(f"another rank failed at {what}; its own message says why")


def broadcast_object(value: Any) -> Any:
    """Rank 0's value on every rank (small picklable objects)."""
    if not _many():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def barrier() -> None:
    """Wait until every rank has arrived."""
    if _many():
        dist.barrier()


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, counts: tuple[int, ...], *parts: Tensor) -> tuple[Tensor, ...]:
        ctx.counts, ctx.shapes = counts, [part.shape[1:] for part in parts]
        packed = _pack(parts, len(parts[0]))
        largest = max(counts)
        if packed.shape[0] < largest:
            # Collectives want equal shapes; the shorter parts are filled up and cut again.
            packed = torch.cat([packed, packed.new_zeros(largest - packed.shape[0], packed.shape[1])])
        gathered = packed.new_empty(len(counts), largest, packed.shape[1])
        dist.all_gather(list(gathered.unbind()), packed)
        if min(counts) == largest:
            return _unpack(gathered.flatten(0, 1), ctx.shapes)
        return _unpack(torch.cat([rows[:count] for rows, count in zip(gathered, counts, strict=True)]), ctx.shapes)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        # Every rank's loss saw every row, so a row's gradient is the sum over ranks. Rows that need none, such as a
        # frozen teacher's, are not sent.
        wanted = [at for at, needed in enumerate(ctx.needs_input_grad[1:]) if needed]
        total = _pack([gradients[at] for at in wanted], sum(ctx.counts))
        if len(wanted) == 1:  # not a copy yet, and autograd may use the gradient elsewhere
            total = total.clone()
        dist.all_reduce(total)
        start = sum(ctx.counts[: dist.get_rank()])
        mine = total[start : start + ctx.counts[dist.get_rank()]]
        result: list[Tensor | None] = [None] * len(ctx.shapes)
        for at, part in zip(wanted, _unpack(mine, [ctx.shapes[at] for at in wanted]), strict=True):
            result[at] = part
        return None, *result


def _pack(parts: Sequence[Tensor], rows: int) -> Tensor:
    """Side by side in one matrix with a row per row; the explicit width serves parts without rows."""
    flat = [part.reshape(rows, math.prod(part.shape[1:])) for part in parts]
    return flat[0].contiguous() if len(flat) == 1 else torch.cat(flat, 1)


def _unpack(packed: Tensor, shapes: Sequence[torch.Size]) -> tuple[Tensor, ...]:
    widths = [math.prod(shape) for shape in shapes]
    return tuple(
        part.reshape(len(packed), *shape) for part, shape in zip(torch.split(packed, widths, 1), shapes, strict=True)
    )


def rows_of_ranks(rows: int, device: torch.device | str = "cpu") -> tuple[int, ...]:
    """How many rows each rank has, in rank order; waits for the slowest rank."""
    return gather_integers([rows], device)[0]


def gather_integers(values: Sequence[int], device: torch.device | str = "cpu") -> tuple[tuple[int, ...], ...]:
    """For each of this rank's integers, what every rank has in its place, in rank order; one exchange."""
    if not _many():
        return tuple((value,) for value in values)
    mine = torch.tensor(values, dtype=torch.int64, device=device)
    all_RV = mine.new_empty(dist.get_world_size(), len(mine))
    dist.all_gather(list(all_RV.unbind()), mine)
    return tuple(zip(*all_RV.tolist(), strict=True))


def gather_rows(rows: Tensor, counts: tuple[int, ...] | None = None) -> Tensor:
    """Rows of all ranks in rank order, differentiable; every rank must bring the same shape but for the rows.

    Args:
        rows: of this rank.
        counts: :func:`rows_of_ranks`, if the caller knows it; asked for otherwise.
    """
    return gather_rows_together([rows], counts)[0]


def gather_rows_together(parts: Sequence[Tensor], counts: tuple[int, ...] | None = None) -> tuple[Tensor, ...]:
    """Several tensors with the same rows as :func:`gather_rows`, in one exchange each way.

    Args:
        parts: of this rank, of one dtype.
        counts: as :func:`gather_rows`.
    """
    if not _many():
        return tuple(parts)
    known = rows_of_ranks(len(parts[0]), parts[0].device) if counts is None else counts
    gathered: tuple[Tensor, ...] = _GatherRows.apply(known, *parts)  # type: ignore[no-untyped-call]
    return gathered


def gather_integer_rows(rows_BV: Tensor, counts: tuple[int, ...]) -> Tensor:
    """Rows of integers of all ranks in rank order, as they are.

    Args:
        rows_BV: int64, of this rank.
        counts: rows of each rank.
    """
    if not _many() or not any(counts):
        return rows_BV
    mine = torch.cat([rows_BV, rows_BV.new_zeros(max(counts) - len(rows_BV), rows_BV.shape[1])])
    all_RKV = mine.new_empty(len(counts), *mine.shape)
    dist.all_gather(list(all_RKV.unbind()), mine)
    return torch.cat([rows[:count] for rows, count in zip(all_RKV, counts, strict=True)])


def visits(mine: Tensor, counts: tuple[int, ...]) -> Iterator[tuple[int, Tensor]]:
    """Every rank's rows in turn, on all ranks, without gradient: only one other rank's rows exist at a time.

    Args:
        mine: this rank's rows, contiguous.
        counts: rows of each rank; ranks without rows are passed over.

    Yields:
        The rank and its rows, which must not be written to.
    """
    for rank, count in enumerate(counts):
        if not count:
            continue
        if not _many():
            yield rank, mine
            continue
        rows = mine if rank == dist.get_rank() else mine.new_empty(count, *mine.shape[1:])
        dist.broadcast(rows, rank)
        yield rank, rows


def send_home(rows: Tensor, rank: int) -> Tensor | None:
    """The sum over ranks of ``rows``, on ``rank`` only; None elsewhere. What a visit's gradient needs."""
    if not _many():
        return rows
    dist.reduce(rows, rank)
    return rows if rank == dist.get_rank() else None


def my_rank() -> int:
    """This process's rank, 0 on one process."""
    return dist.get_rank() if _many() else 0
