"""The few exchanges between ranks that are needed beside DeepSpeed's own; each is the identity on one process."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


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
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.rows = rows.shape[0]
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        # Every rank's loss saw every row, so a row's gradient is the sum over ranks.
        total = gradients[0].contiguous()
        dist.all_reduce(total)
        start = dist.get_rank() * ctx.rows
        return total[start : start + ctx.rows]


def gather_rows(rows: Tensor) -> Tensor:
    """Rows of all ranks in rank order, differentiable; every rank must bring the same shape."""
    gathered: Tensor = _GatherRows.apply(rows) if _many() else rows  # type: ignore[no-untyped-call]
    return gathered


def largest_over_ranks(value: int, device: torch.device | str = "cpu") -> int:
    """The maximum of an integer over ranks, for example to agree on a padded length."""
    largest = torch.tensor([value], device=device)
    if _many():
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return int(largest.item())
