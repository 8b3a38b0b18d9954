"""Transport for a cost that is given as a matrix instead of following from vectors."""

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from optical_scale.errors import TransportError
from optical_scale.transport.choose import BackendName, DomainName, Settings
from optical_scale.transport.geometry import MatrixGeometry, working_dtype
from optical_scale.transport.output import SinkhornOutput
from optical_scale.transport.precision import full_precision
from optical_scale.transport.problem import EpsilonMode, TransportProblem, check_tensors, finish_problem, masses
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
        cost_BNM: costs, any floating dtype; never read outside the masks. They are copied: later changes of the tensor
            do not reach the solution.
        mask_x_BN: rows that exist, None for all.
        mask_y_BM: columns that exist, None for all.
        epsilon_mode: as ``solve``; large costs that forbid matches count in the deviation, so masks serve better there.
        backend: as ``solve``, like all that follow; "blockwise" reads the copy in panels and stores no kernel. The
            Triton kernels compute costs from vectors and are refused.

    Returns:
        The solution, without gradient; :func:`matrix_cost` has one.

    Raises:
        TransportError: not a batch of floating matrices, or as ``solve``.
    """
    if str(backend).startswith("triton"):
        raise TransportError(
            f"backend is {backend!r}, whose kernels compute costs from vectors; a matrix needs 'dense', 'streamed', "
            "'blockwise' or 'auto'"
        )
    settings = Settings(
        epsilon, epsilon_mode, iterations, tolerance, "cosine", rho, backend, domain, check, mass, relaxation, schedule
    )
    given = {"cost": cost_BNM, "mask_x_BN": mask_x_BN, "mask_y_BM": mask_y_BM}
    check_tensors(given | {"marginal_x": marginal_x, "marginal_y": marginal_y})
    with torch.no_grad(), full_precision(cost_BNM.device):
        problem = _problem(settings, cost_BNM, mask_x_BN, mask_y_BM, marginal_x, marginal_y)
        return run(settings, problem, start).output()


def _problem(
    settings: Settings,
    cost_BNM: Tensor,
    mask_x_BN: Tensor | None,
    mask_y_BM: Tensor | None,
    marginal_x: Tensor | None,
    marginal_y: Tensor | None,
) -> TransportProblem:
    cost_BNM = _prepared(cost_BNM, mask_x_BN, mask_y_BM)
    return finish_problem(
        MatrixGeometry(cost_BNM),
        masses(cost_BNM[:, :, 0], mask_x_BN, marginal_x, "marginal_x"),
        masses(cost_BNM[:, 0, :], mask_y_BM, marginal_y, "marginal_y"),
        mask_x_BN,
        mask_y_BM,
        epsilon=settings.epsilon,
        epsilon_mode=settings.epsilon_mode,
        rho=settings.rho,
        check=settings.check,
        mass=settings.mass,
    )


def _prepared(cost_BNM: Tensor, mask_x_BN: Tensor | None, mask_y_BM: Tensor | None) -> Tensor:
    """A contiguous copy of the cost in the working dtype; outside the masks, the pair's lowest existing entry."""
    if cost_BNM.ndim != 3 or not cost_BNM.is_floating_point() or 0 in cost_BNM.shape:
        raise TransportError(
            f"cost is {cost_BNM.dtype} {tuple(cost_BNM.shape)}; expected floating (pairs, rows, columns), one or more "
            "of each"
        )
    exists = None
    for name, mask, dimension in (("mask_x_BN", mask_x_BN, 1), ("mask_y_BM", mask_y_BM, 2)):
        if mask is None:
            continue
        if mask.dtype != torch.bool or mask.shape != (len(cost_BNM), cost_BNM.shape[dimension]):
            found = f"{mask.dtype} {tuple(mask.shape)}"
            raise TransportError(f"{name} is {found}; expected bool ({len(cost_BNM)}, {cost_BNM.shape[dimension]})")
        mask = mask.unsqueeze(3 - dimension)
        exists = mask if exists is None else exists & mask
    dtype = working_dtype(cost_BNM)
    if exists is None:
        return cost_BNM.to(dtype, copy=True, memory_format=torch.contiguous_format)
    cost = cost_BNM.to(dtype)
    # The range of a pair's costs decides its domain and bounds a relative epsilon, so padding must not widen it.
    lowest_B11 = cost.masked_fill(~exists, torch.inf).amin((1, 2), keepdim=True)
    # A pair without tokens has no lowest entry; the error about it is to speak of its masks, not of infinity.
    return torch.where(exists, cost, lowest_B11.masked_fill(lowest_B11 == torch.inf, 0.0)).contiguous()


def matrix_cost(cost_BNM: Tensor, output: SinkhornOutput) -> Tensor:
    """``<P, C>`` of each pair, differentiable in the cost with P constant (the envelope gradient, which is P).

    P is the plan of ``output``, whatever the costs: of those that were solved for this is ``output.primal_cost()``
    with its gradient, of others what they would charge for the same plan.

    Args:
        cost_BNM: costs, not read where there is no mass.
        output: what :func:`solve_matrix` returned; the plan is recomputed from its potentials, not stored.

    Returns:
        (B,) costs.

    Raises:
        TransportError: the output is of another shape, or not of :func:`solve_matrix`.
    """
    check_tensors({"cost": cost_BNM})
    geometry = output.problem.geometry if isinstance(output, SinkhornOutput) else None
    if not isinstance(geometry, MatrixGeometry):
        raise TransportError(
            "the output is of vectors, not of solve_matrix; take its primal_cost(), or sinkhorn_cost for a gradient"
        )
    if geometry.shape != tuple(cost_BNM.shape):
        raise TransportError(f"the output is for costs {geometry.shape}, not {tuple(cost_BNM.shape)}")
    with full_precision(cost_BNM.device):
        value_B: Tensor = _MatrixCost.apply(cost_BNM, output)  # type: ignore[no-untyped-call]
    return value_B


class _MatrixCost(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, cost_BNM: Tensor, output: SinkhornOutput) -> Tensor:
        ctx.output, ctx.dtype = output, cost_BNM.dtype  # type: ignore[attr-defined]
        no_row_BN1, no_column_B1M = (output.problem.a_BN == 0).unsqueeze(2), (output.problem.b_BM == 0).unsqueeze(1)
        sums = []
        for rows, plan_BRM, _ in output.panels():
            # A fill, because zero times the NaN that padding may hold is NaN.
            cost_BRM = cost_BNM[:, rows].to(plan_BRM.dtype).masked_fill(no_row_BN1[:, rows] | no_column_B1M, 0.0)
            sums.append(plan_BRM.mul_(cost_BRM).sum((1, 2)))
        return torch.stack(sums).sum(0)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_B: Tensor) -> tuple[Tensor, None]:
        plan_BNM = ctx.output.plan()  # type: ignore[attr-defined]
        return plan_BNM.mul_(grad_B[:, None, None]).to(ctx.dtype), None  # type: ignore[attr-defined]
