"""One transport problem whose rows are divided among ranks, for sequences too long for one device.

Each rank holds some rows and all columns. An iteration is local except for the column sums: one all-reduce of M numbers
in the exponential domain, one all-gather of 2 M in the log domain. The cost is that of the whole problem on every rank.
"""

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from optical_scale.errors import TransportError
from optical_scale.transport.blockwise import Blockwise
from optical_scale.transport.choose import PLAIN_RANGE_OVER_EPSILON
from optical_scale.transport.geometry import CostName
from optical_scale.transport.precision import full_precision
from optical_scale.transport.problem import TransportProblem, build_problem


class ShardedCost(NamedTuple):
    """``<P, C>`` of the whole problem (B,), with gradient, and its marginal error (B,); the same on every rank."""

    cost_B: Tensor
    marginal_error_B: Tensor


def sharded_cost(
    x_BRD: Tensor,
    y_BMD: Tensor,
    mask_x_BR: Tensor | None = None,
    mask_y_BM: Tensor | None = None,
    *,
    group: dist.ProcessGroup,
    epsilon: float = 0.02,
    iterations: int = 20,
    cost: CostName = "cosine",
    rho: float | None = None,
) -> ShardedCost:
    """Differentiable ``<P, C>`` with this rank's rows of x and all of y; every rank of the group calls it together.

    Masses are uniform over all tokens. Backward gives x the gradient of the whole cost in this rank's rows, and y its
    full gradient, already summed over the group.

    Args:
        x_BRD: this rank's rows; ranks may hold different numbers of them.
        y_BMD: all columns, the same on every rank.
        mask_x_BR: rows that exist; a rank may have none.
        mask_y_BM: columns that exist.
        group: the ranks that share the problem.
        epsilon: entropic strength in units of the cost.
        iterations: full iterations.
        cost: as ``solve``.
        rho: as ``solve``.

    Returns:
        The cost and the marginal error of the whole problem.

    Raises:
        TransportError: bad input on any rank, raised on all of them; or scalings that left float32's range.
    """
    with full_precision(x_BRD.device):
        values = _ShardedCost.apply(  # type: ignore[no-untyped-call]
            x_BRD, y_BMD, mask_x_BR, mask_y_BM, (group, epsilon, iterations, cost, rho)
        )
    return ShardedCost(*values)


def _pose(
    x_BRD: Tensor, y_BMD: Tensor, mask_x_BR: Tensor | None, mask_y_BM: Tensor | None, group: dist.ProcessGroup,
    epsilon: float, cost: CostName, rho: float | None,
) -> TransportProblem:  # fmt: skip
    """This rank's part of the problem, with masses that sum to one over the group."""
    ones_BR = x_BRD.new_ones(x_BRD.shape[:2], dtype=torch.float32) if mask_x_BR is None else mask_x_BR.float()
    count_B1 = ones_BR.sum(1, keepdim=True)
    dist.all_reduce(count_B1, group=group)
    marginal_x = ones_BR / count_B1.clamp_min(1.0)
    problem = build_problem(
        x_BRD, y_BMD, mask_x_BR, mask_y_BM, marginal_x, None,
        cost=cost, epsilon=epsilon, epsilon_mode="absolute", rho=rho, check=False,
    )  # fmt: skip
    wrong = {what: wrong_B.any() for what, wrong_B in problem.geometry.not_finite().items()}
    wrong["no rank has a token of x in some pair"] = (count_B1 == 0).any()
    wrong["y has no tokens inside its mask in some pair"] = (problem.b_BM.sum(1) == 0).any()
    flags = torch.stack(list(wrong.values())).to(torch.int32)
    # All ranks learn of it: one that raised alone would leave the others waiting.
    dist.all_reduce(flags, dist.ReduceOp.MAX, group=group)
    for what, flag in zip(wrong, flags.tolist(), strict=True):
        if flag:
            raise TransportError(f"{what} (on some rank of {dist.get_world_size(group)})")
    return problem


class _ShardedCost(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x_BRD: Tensor,
        y_BMD: Tensor,
        mask_x_BR: Tensor | None,
        mask_y_BM: Tensor | None,
        settings: tuple[dist.ProcessGroup, float, int, CostName, float | None],
    ) -> tuple[Tensor, Tensor]:
        group, epsilon, iterations, cost, rho = settings
        problem = _pose(x_BRD, y_BMD, mask_x_BR, mask_y_BM, group, epsilon, cost, rho)
        geometry = problem.geometry
        plain = cost == "cosine" and 2.0 / epsilon <= PLAIN_RANGE_OVER_EPSILON * (1 + 1e-6)
        operators = Blockwise(problem, log_domain=not plain, group=group)
        f_BR, g_BM = operators.iterate(torch.zeros_like(problem.b_BM), iterations)
        broken = (~torch.isfinite(f_BR).all() | ~torch.isfinite(g_BM).all()).to(torch.int32)
        dist.all_reduce(broken, dist.ReduceOp.MAX, group=group)
        if bool(broken):
            raise TransportError("potentials are not finite on some rank; use a larger epsilon")
        mass_BM = problem.column_mass(g_BM)
        product_x, mass_BR = operators.apply_plan(f_BR, g_BM, geometry.q_BMD, 1)
        inner_BR = geometry.inner(product_x, "x")
        # Column terms are whole on every rank already; the rest is this rank's share.
        no_BM = torch.zeros_like(mass_BM)
        error_B = (mass_BR - problem.target_row_mass(f_BR, mass_BR)).abs().sum(1)
        shares_2B = torch.stack([geometry.total_cost(inner_BR, mass_BR, no_BM), error_B])
        dist.all_reduce(shares_2B, group=group)
        cost_B = shares_2B[0] if geometry.column_BM is None else shares_2B[0] + (geometry.column_BM * mass_BM).sum(1)
        needs_x, needs_y = ctx.needs_input_grad[:2]  # type: ignore[attr-defined]
        # Both directions are sums over ranks, so a rank may not skip one that another computes.
        need_y = torch.tensor(int(needs_y), device=x_BRD.device)
        dist.all_reduce(need_y, dist.ReduceOp.MAX, group=group)
        saved: list[Tensor | None] = [None, None]
        if needs_x:
            saved[0] = geometry.pull_back(product_x, inner_BR, mass_BR, "x").to(x_BRD.dtype)
        if bool(need_y):
            product_y = operators.apply_plan(f_BR, g_BM, geometry.p_BND, 0).values
            saved[1] = geometry.pull_back(product_y, geometry.inner(product_y, "y"), mass_BM, "y").to(y_BMD.dtype)
        ctx.save_for_backward(*saved)  # type: ignore[arg-type]
        ctx.mark_non_differentiable(shares_2B)
        return cost_B.clone(), shares_2B[1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_B: Tensor, unused: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # type: ignore[attr-defined]
        grads = [None if one is None else one * grad_B[:, None, None].to(one.dtype) for one in saved]
        return *grads, None, None, None
