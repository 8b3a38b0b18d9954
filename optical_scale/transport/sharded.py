"""One transport problem whose rows are divided among ranks, for sequences too long for one device.

Each rank holds some rows and all columns. An iteration is local except for the column sums: one all-reduce of M numbers
in the exponential domain, one all-gather of 2 M in the log domain. The cost is that of the whole problem on every rank.
"""

import numbers
from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.functional import pad

from optical_scale.errors import TransportError
from optical_scale.transport.blockwise import Blockwise
from optical_scale.transport.choose import PLAIN_RANGE_OVER_EPSILON, Settings
from optical_scale.transport.geometry import CostName
from optical_scale.transport.precision import full_precision
from optical_scale.transport.problem import TransportProblem, build_problem, check_tensors


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
        x_BRD: this rank's rows; ranks may hold different numbers of them, or none (B, 0, D).
        y_BMD: all columns, the same on every rank.
        mask_x_BR: rows that exist; of some pair a rank may have none.
        mask_y_BM: columns that exist.
        group: the ranks that share the problem.
        epsilon: entropic strength in units of the cost.
        iterations: full iterations.
        cost: as ``solve``.
        rho: as ``solve``.

    Returns:
        The cost and the marginal error of the whole problem.

    Raises:
        TransportError: bad input on any rank, or settings that are not the same on all, raised on all of them with the
            ranks at fault; or scalings that left float32's range.
    """
    tensors = isinstance(x_BRD, Tensor) and isinstance(mask_x_BR, Tensor | None)
    if tensors and x_BRD.ndim == 3 and x_BRD.shape[1] == 0 and (mask_x_BR is None or not mask_x_BR.numel()):
        # Panels hold at least one row; one that does not exist changes no sum.
        mask_x_BR = x_BRD.new_zeros(len(x_BRD), 1, dtype=torch.bool)
        x_BRD = pad(x_BRD, (0, 0, 0, 1))
    # What is no tensor is told to all ranks together.
    with full_precision(x_BRD.device if tensors else torch.device("cpu")):
        values = _ShardedCost.apply(  # type: ignore[no-untyped-call]
            x_BRD, y_BMD, mask_x_BR, mask_y_BM, group, _Terms(epsilon, iterations, cost, rho)
        )
    return ShardedCost(*values)


class _Terms(NamedTuple):
    """What every rank has to pass alike."""

    epsilon: float
    iterations: int
    cost: CostName
    rho: float | None


def _pose(
    x_BRD: Tensor,
    y_BMD: Tensor,
    mask_x_BR: Tensor | None,
    mask_y_BM: Tensor | None,
    group: dist.ProcessGroup,
    terms: _Terms,
) -> TransportProblem:
    """This rank's part of the problem, with masses that sum to one over the group."""
    found: TransportProblem | Exception
    try:
        found = _own_part(x_BRD, y_BMD, mask_x_BR, mask_y_BM, terms)
    except Exception as error:
        # Whatever it is, all ranks learn of it first: one that raised alone would leave the others waiting.
        found = error
    problem = _agreed(found, terms, group)
    count_B1 = problem.a_BN.sum(1, keepdim=True)
    dist.all_reduce(count_B1, group=group)
    if bool((count_B1 == 0).any()):
        pair = int((count_B1 == 0).nonzero()[0, 0])
        raise TransportError(f"no rank has a token of x in pair {pair} of {len(count_B1)}; drop such pairs")
    return replace(problem, a_BN=problem.a_BN / count_B1)


def _own_part(
    x_BRD: Tensor, y_BMD: Tensor, mask_x_BR: Tensor | None, mask_y_BM: Tensor | None, terms: _Terms
) -> TransportProblem:
    """This rank's rows, each of mass one, after every check that needs no other rank."""
    epsilon: Any = terms.epsilon
    if not isinstance(epsilon, numbers.Real):
        raise TransportError(f"epsilon is {epsilon!r}; expected one number for all pairs")
    Settings(terms.epsilon, iterations=terms.iterations, cost=terms.cost, rho=terms.rho)
    check_tensors({"x": x_BRD, "y": y_BMD})
    ones_BR = x_BRD.new_ones(x_BRD.shape[:2])
    problem = build_problem(
        x_BRD, y_BMD, mask_x_BR, mask_y_BM, ones_BR, None,
        cost=terms.cost, epsilon=terms.epsilon, epsilon_mode="absolute", rho=terms.rho, check=False,
    )  # fmt: skip
    nothing = {"y has no tokens inside its mask": problem.b_BM.sum(1) == 0}
    for what, wrong_B in (problem.geometry.not_finite() | nothing).items():
        if bool(wrong_B.any()):
            raise TransportError(f"{what} (pair {int(wrong_B.nonzero()[0])} of {len(wrong_B)})")
    return problem


def _agreed(found: TransportProblem | Exception, terms: _Terms, group: dist.ProcessGroup) -> TransportProblem:
    """The problem, if no rank found a fault and all found the same problem; what is wrong raises on every rank."""
    fault, shared = None, {}
    if isinstance(found, Exception):
        fault = str(found) if isinstance(found, TransportError) else f"{type(found).__name__}: {found}"
    else:
        pairs, columns, width = found.geometry.q_BMD.shape
        shared = terms._asdict() | {"pairs": pairs, "columns of y": columns, "width": width}
        shared["existing columns of the pairs"] = (found.b_BM > 0).sum(1).tolist()
        shared["dtype"] = str(found.b_BM.dtype)
    told: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(told, (fault, shared), group=group)
    ranks = dist.get_process_group_ranks(group)
    faults: dict[str, list[str]] = {}
    for rank, (what, _) in zip(ranks, told, strict=True):
        if what is not None:
            faults.setdefault(what, []).append(str(rank))
    if isinstance(found, Exception) or faults:
        listed = "; ".join(f"on rank {', '.join(where)}: {what}" for what, where in faults.items())
        raise TransportError(listed) from (found if isinstance(found, Exception) else None)
    for rank, (_, other) in zip(ranks, told, strict=True):
        for name, value in told[0][1].items():
            if other[name] != value:
                raise TransportError(
                    f"{name}: {value} on rank {ranks[0]} but {other[name]} on rank {rank}; all ranks solve one problem"
                )
    return found


class _ShardedCost(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x_BRD: Tensor,
        y_BMD: Tensor,
        mask_x_BR: Tensor | None,
        mask_y_BM: Tensor | None,
        group: dist.ProcessGroup,
        terms: _Terms,
    ) -> tuple[Tensor, Tensor]:
        problem = _pose(x_BRD, y_BMD, mask_x_BR, mask_y_BM, group, terms)
        geometry = problem.geometry
        plain = terms.cost == "cosine" and 2.0 / terms.epsilon <= PLAIN_RANGE_OVER_EPSILON * (1 + 1e-6)
        operators = Blockwise(problem, log_domain=not plain, group=group)
        f_BR, g_BM = operators.iterate(torch.zeros_like(problem.b_BM), terms.iterations)
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
        return *grads, None, None, None, None
