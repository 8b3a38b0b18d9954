"""Transport for a cost that is given as a matrix instead of following from vectors."""

from dataclasses import replace

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from optical_scale.errors import TransportError
from optical_scale.transport.choose import BackendName, DomainName, Settings
from optical_scale.transport.geometry import MatrixGeometry, working_dtype
from optical_scale.transport.output import SinkhornOutput
from optical_scale.transport.problem import EpsilonMode, finish_problem, masses
from optical_scale.transport.solve import Start, run


def solve_matrix(  # noqa: D417 - the others are documented by solve
    cost_BNM: Tensor,
    mask_x_BN: Tensor | None = None,
    mask_y_BM: Tensor | None = None,
    *,
    marginal_x: Tensor | None = None,
    marginal_y: Tensor | None = None,
    epsilon: float | Tensor = 0.02,
    epsilon_mode: EpsilonMode = "absolute",
    iterations: int = 20,
    tolerance: float | None = None,
    rho: float | None = None,
    backend: BackendName = "auto",
    domain: DomainName = "auto",
    check: bool = True,
    mass: float | Tensor | None = None,
    relaxation: float = 1.0,
    schedule: tuple[float, ...] = (),
    start: Start | None = None,
) -> SinkhornOutput:
    """Solve a batch of entropic transport problems with given costs; see :func:`~optical_scale.transport.solve.solve`.

    Args:
        cost_BNM: costs, any floating dtype; never read outside the masks.
        mask_x_BN: rows that exist, None for all.
        mask_y_BM: columns that exist, None for all.
        backend: as ``solve``, like all that follow; "blockwise" reads the matrix in panels and stores no second one.

    Returns:
        The solution, without gradient; :func:`matrix_cost` has one.

    Raises:
        TransportError: not a batch of floating matrices, or as ``solve``.
    """
    settings = Settings(
        epsilon, epsilon_mode, iterations, tolerance, "cosine", rho, backend, domain, check, mass, relaxation, schedule
    )
    with torch.no_grad():
        cost = _prepared(cost_BNM, mask_x_BN, mask_y_BM)
        problem = finish_problem(
            MatrixGeometry(cost),
            masses(cost[:, :, 0], mask_x_BN, marginal_x, "marginal_x"),
            masses(cost[:, 0, :], mask_y_BM, marginal_y, "marginal_y"),
            mask_x_BN,
            mask_y_BM,
            epsilon=epsilon,
            epsilon_mode=epsilon_mode,
            rho=rho,
            check=check,
            mass=mass,
        )
        return run(settings, problem, start).output()


def _prepared(cost_BNM: Tensor, mask_x_BN: Tensor | None, mask_y_BM: Tensor | None) -> Tensor:
    """The cost in the working dtype, zero outside the masks."""
    if cost_BNM.ndim != 3 or not cost_BNM.is_floating_point() or 0 in cost_BNM.shape[1:]:
        raise TransportError(
            f"cost is {cost_BNM.dtype} {tuple(cost_BNM.shape)}; expected floating (pairs, rows, columns)"
        )
    cost = cost_BNM.to(working_dtype(cost_BNM))
    for name, mask, dimension in (("mask_x_BN", mask_x_BN, 1), ("mask_y_BM", mask_y_BM, 2)):
        if mask is None:
            continue
        if mask.dtype != torch.bool or mask.shape != (len(cost), cost.shape[dimension]):
            found = f"{mask.dtype} {tuple(mask.shape)}"
            raise TransportError(f"{name} is {found}; expected bool ({len(cost)}, {cost.shape[dimension]})")
        cost = cost.masked_fill(~mask.unsqueeze(3 - dimension), 0.0)
    return cost


def matrix_cost(cost_BNM: Tensor, output: SinkhornOutput) -> Tensor:
    """``<P, C>`` of each pair, differentiable in the cost with P constant (the envelope gradient, which is P).

    Args:
        cost_BNM: the costs that were solved for.
        output: what :func:`solve_matrix` returned for them; the plan is recomputed from its potentials, not stored.

    Returns:
        (B,) costs.

    Raises:
        TransportError: the output is of another shape.
    """
    if output.problem.geometry.shape != tuple(cost_BNM.shape):
        raise TransportError(f"the output is for costs {output.problem.geometry.shape}, not {tuple(cost_BNM.shape)}")
    value_B: Tensor = _MatrixCost.apply(cost_BNM, replace(output))  # type: ignore[no-untyped-call]
    return value_B


class _MatrixCost(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, cost_BNM: Tensor, output: SinkhornOutput) -> Tensor:
        ctx.output, ctx.dtype = output, cost_BNM.dtype  # type: ignore[attr-defined]
        return output.primal_cost()

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_B: Tensor) -> tuple[Tensor, None]:
        plan_BNM = ctx.output.plan()  # type: ignore[attr-defined]
        return plan_BNM.mul_(grad_B[:, None, None]).to(ctx.dtype), None  # type: ignore[attr-defined]
