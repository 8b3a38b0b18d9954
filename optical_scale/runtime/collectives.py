"""The few exchanges between ranks that are needed beside DeepSpeed's own; each is the identity on one process."""

from collections.abc import Iterator
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
    def forward(ctx: Any, rows: Tensor, counts: tuple[int, ...]) -> Tensor:
        ctx.counts = counts
        # Collectives want equal shapes; the shorter parts are filled up and cut again.
        padded = rows.new_zeros(max(counts), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        # Every rank's loss saw every row, so a row's gradient is the sum over ranks.
        total = gradients[0].contiguous()
        dist.all_reduce(total)
        start = sum(ctx.counts[: dist.get_rank()])
        return total[start : start + ctx.counts[dist.get_rank()]], None


def rows_of_ranks(rows: int, device: torch.device | str = "cpu") -> tuple[int, ...]:
    """How many rows each rank has, in rank order."""
    if not _many():
        return (rows,)
    counts = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, torch.tensor([rows], device=device))
    return tuple(int(count.item()) for count in counts)


def gather_rows(rows: Tensor, counts: tuple[int, ...] | None = None) -> Tensor:
    """Rows of all ranks in rank order, differentiable; every rank must bring the same shape but for the rows.

    Args:
        rows: of this rank.
        counts: :func:`rows_of_ranks`, if the caller knows it; asked for otherwise.
    """
    if not _many():
        return rows
    known = rows_of_ranks(len(rows), rows.device) if counts is None else counts
    gathered: Tensor = _GatherRows.apply(rows, known)  # type: ignore[no-untyped-call]
    return gathered


def largest_over_ranks(value: int, device: torch.device | str = "cpu") -> int:
    """The maximum of an integer over ranks, for example to agree on a padded length."""
    largest = torch.tensor([value], device=device)
    if _many():
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return int(largest.item())
