"""The differentiable transport cost ``<P, C>``.

``gradient="envelope"`` holds the plan constant. By Danskin's theorem that is the gradient of the dual value at
convergence; it needs no graph through the loop, and one product ``P q`` gives both the value and the gradient, so
backward is a multiplication.
``gradient="unrolled"`` differentiates every iteration: a different, sharper objective at many times the memory.
``gradient="implicit"`` differentiates ``<P, C>`` at the solution, plan included, without a graph through the loop.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from optical_scale.errors import TransportError
from optical_scale.transport.choose import BackendName, DomainName, Settings, fusable
from optical_scale.transport.dense import DenseLog
from optical_scale.transport.geometry import CostName
from optical_scale.transport.implicit import implicit_gradients
from optical_scale.transport.output import Choice, PlanSummary, column_mass, partial_level, summarise
from optical_scale.transport.precision import full_precision
from optical_scale.transport.problem import EpsilonMode, TransportProblem, check_shapes
from optical_scale.transport.sinkhorn import Sinkhorn
from optical_scale.transport.solve import Solved, Start, pose, run
from optical_scale.transport.triton.short import ShortPairs, fused_cost

GradientName = Literal["envelope", "unrolled", "implicit"]


@dataclass(frozen=True, slots=True)
class SinkhornCost:
    """A differentiable cost with its diagnostics; only ``cost_B`` carries a gradient.

    Attributes:
        cost_B: ``<P, C>`` per pair, or its debiased combination.
        dual_cost_B: the value whose exact gradient the envelope is, at convergence; debiased: the Sinkhorn divergence.
        marginal_error_B: share of the mass that is misplaced; the worst of the three problems when debiased.
        effective_matches_B: tokens of y that a token of x is spread over, geometric mean; of the plan between x and y.
        iterations_B: full iterations used.
        converged_B: bool, tolerance met, or marginal error at most 1e-2 when none was set.
        epsilon_B: epsilon in units of the cost.
        choice: backend, domain, and why; of the problem between x and y.
    """

    cost_B: Tensor
    dual_cost_B: Tensor
    marginal_error_B: Tensor
    effective_matches_B: Tensor
    iterations_B: Tensor
    converged_B: Tensor
    epsilon_B: Tensor
    choice: Choice


def sinkhorn_cost(  # noqa: D417 - the others are documented by solve
    x_BND: Tensor,
    y_BMD: Tensor,
    mask_x_BN: Tensor | None = None,
    mask_y_BM: Tensor | None = None,
    *,
    marginal_x: Tensor | None = None,
    marginal_y: Tensor | None = None,
    epsilon: float | Tensor = 0.02,
    epsilon_mode: EpsilonMode = "absolute",
    iterations: int = 20,
    tolerance: float | None = None,
    cost: CostName = "cosine",
    rho: float | None = None,
    backend: BackendName = "auto",
    domain: DomainName = "auto",
    check: bool = True,
    mass: float | Tensor | None = None,
    relaxation: float = 1.0,
    schedule: tuple[float, ...] = (),
    start: Start | None = None,
    gradient: GradientName = "envelope",
    debias: bool = False,
) -> SinkhornCost:
    """Differentiable ``<P, C>`` of each pair, P the entropic plan (as in OPTICAL, arXiv 2301.12566).

    Arguments without a line here are those of :func:`~optical_scale.transport.solve.solve`. Marginals that require a
    gradient get one (zero where they are zero); epsilon does not.

    Args:
        x_BND: (B, N, D); a gradient is computed only if it requires one.
        y_BMD: (B, M, D), the same.
        epsilon_mode: see ``solve``; with ``debias`` the self-transports use the epsilon of the pair (x, y).
        tolerance: see ``solve``; not with "unrolled".
        rho: see ``solve``; not with ``debias``.
        backend: see ``solve``; "unrolled" is always dense.
        domain: see ``solve``; "unrolled" is always log.
        mass: see ``solve``; only with "envelope", not with ``debias``.
        relaxation: see ``solve``; not with "unrolled".
        schedule: see ``solve``; not with "unrolled".
        start: see ``solve``; not with "unrolled" or ``debias``.
        gradient: "envelope" holds P constant, "unrolled" differentiates the loop, "implicit" the solution, assuming
            that the loop has converged.
        debias: subtract half of each self-transport, the terms of the Sinkhorn divergence (Feydy et al. 2019).

    Returns:
        Costs and diagnostics, float32 (float64 for float64 inputs).

    Raises:
        TransportError: as ``solve``, or a combination the chosen gradient cannot do.
    """
    settings = Settings(
        epsilon, epsilon_mode, iterations, tolerance, cost, rho, backend, domain, check, mass, relaxation, schedule
    )
    _check_combination(settings, gradient, debias, start)
    check_shapes(x_BND, y_BMD, mask_x_BN, mask_y_BM, marginal_x, marginal_y)
    return _cost(settings, gradient, debias, start, (x_BND, y_BMD, mask_x_BN, mask_y_BM, marginal_x, marginal_y))


def _cost(
    settings: Settings,
    gradient: str,
    debias: bool,
    start: Start | None,
    inputs: tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor | None],
) -> SinkhornCost:
    x_BND, y_BMD, mask_x_BN, mask_y_BM, marginal_x, marginal_y = inputs

    def one(x: Tensor, y: Tensor, *rest: Tensor | None) -> SinkhornCost:
        if gradient == "unrolled":
            return _unrolled(settings, x, y, *rest)
        domain = fusable(settings, x, y, *rest) if gradient == "envelope" and start is None else None
        if domain is not None:
            return _fused(settings, domain, x, y, *rest)
        return _solved(settings, start, gradient == "implicit", x, y, *rest)

    with full_precision(x_BND.device):
        cross = one(x_BND, y_BMD, mask_x_BN, mask_y_BM, marginal_x, marginal_y)
        if not debias:
            return cross
        settings = _same_epsilon(settings, cross)
        self_x = one(x_BND, x_BND, mask_x_BN, mask_x_BN, marginal_x, marginal_x)
        self_y = one(y_BMD, y_BMD, mask_y_BM, mask_y_BM, marginal_y, marginal_y)
    return _debiased(cross, self_x, self_y)


def _same_epsilon(settings: Settings, cross: SinkhornCost) -> Settings:
    if isinstance(settings.epsilon, Tensor) or settings.epsilon_mode == "relative":
        return replace(settings, epsilon=cross.epsilon_B, epsilon_mode="absolute")
    return settings


def _debiased(cross: SinkhornCost, self_x: SinkhornCost, self_y: SinkhornCost) -> SinkhornCost:
    errors_KB = torch.stack([one.marginal_error_B for one in (cross, self_x, self_y)])
    iterations_KB = torch.stack([one.iterations_B for one in (cross, self_x, self_y)])
    return replace(
        cross,
        cost_B=cross.cost_B - 0.5 * (self_x.cost_B + self_y.cost_B),
        dual_cost_B=cross.dual_cost_B - 0.5 * (self_x.dual_cost_B + self_y.dual_cost_B),
        marginal_error_B=errors_KB.amax(0),
        iterations_B=iterations_KB.amax(0),
        converged_B=cross.converged_B & self_x.converged_B & self_y.converged_B,
    )


def _check_combination(settings: Settings, gradient: str, debias: bool, start: Start | None) -> None:
    if gradient not in ("envelope", "unrolled", "implicit"):
        raise TransportError(f"gradient is {gradient!r}; expected 'envelope', 'unrolled' or 'implicit'")
    if debias and settings.rho is not None:
        raise TransportError("debias and rho exclude each other: the unbalanced divergence has further mass terms")
    if debias and (settings.mass is not None or start is not None):
        raise TransportError("debias solves three problems; mass and start describe only one of them")
    if settings.mass is not None and gradient != "envelope":
        raise TransportError(f"gradient={gradient!r} needs a smooth problem; a partial plan (mass) has 'envelope' only")
    if gradient != "unrolled":
        return
    for name, value, only in (("backend", settings.backend, "dense"), ("domain", settings.domain, "log")):
        if value not in ("auto", only):
            raise TransportError(f"{name}={value!r} cannot be differentiated through; 'unrolled' needs {only!r}")
    if settings.tolerance is not None:
        raise TransportError("gradient='unrolled' runs a fixed number of iterations; leave tolerance unset")
    if settings.relaxation != 1 or settings.schedule or start is not None:
        raise TransportError(
            "gradient='unrolled' runs plain iterations from zero; leave relaxation, schedule and start"
        )


def _fused(settings: Settings, domain: DomainName, x_BND: Tensor, y_BMD: Tensor, *rest: Tensor | None) -> SinkhornCost:
    mask_x_BN, mask_y_BM, marginal_x, marginal_y = rest
    check_shapes(x_BND, y_BMD, mask_x_BN, mask_y_BM, marginal_x, marginal_y)
    (B, N, _), M = x_BND.shape, y_BMD.shape[1]
    pairs = ShortPairs(B, N, M, mask_x_BN, mask_y_BM, marginal_x, marginal_y)
    return short_cost(settings, domain, x_BND, y_BMD, pairs)


def short_cost(settings: Settings, domain: DomainName, x: Tensor, y: Tensor, pairs: ShortPairs) -> SinkhornCost:
    """Short pairs solved and differentiated by one launch each.

    Args:
        settings: that :func:`.choose.fusable` accepts.
        domain: that it returned.
        x: (B, N, D), or packed (X, D).
        y: (B, M, D), or packed (Y, D).
        pairs: where the tokens are.

    Returns:
        As :func:`sinkhorn_cost`.
    """
    assert not isinstance(settings.epsilon, Tensor), "fusable has seen to it"
    result = fused_cost(x, y, pairs, epsilon=settings.epsilon, count=settings.iterations, log_domain=domain == "log")
    error_B = result.marginal_error_B
    return SinkhornCost(
        result.cost_B,
        result.dual_cost_B,
        error_B,
        result.effective_matches_B,
        torch.full_like(error_B, settings.iterations, dtype=torch.int64),
        Sinkhorn(settings.iterations).converged(error_B),
        torch.full_like(error_B, settings.epsilon),
        Choice("triton_pairs", domain, f"{pairs.B} pairs of {pairs.N} x {pairs.M} fused into one launch"),
    )


def _solved(
    settings: Settings, start: Start | None, implicit: bool, x_BND: Tensor, y_BMD: Tensor, *rest: Tensor | None
) -> SinkhornCost:
    mask_x_BN, mask_y_BM, marginal_x, marginal_y = rest
    kept: list[Solved] = []

    def solver(x: Tensor, y: Tensor, a: Tensor | None, b: Tensor | None) -> Solved:
        solved = run(settings, pose(settings, x, y, mask_x_BN, mask_y_BM, a, b), start)
        kept.append(solved)
        return solved

    function = _ImplicitCost if implicit else _EnvelopeCost
    cost_B, dual_B, error_B, matches_B = function.apply(  # type: ignore[no-untyped-call]
        x_BND, y_BMD, marginal_x, marginal_y, solver
    )
    solved = kept[0]
    return SinkhornCost(
        cost_B,
        dual_B,
        error_B,
        matches_B,
        solved.potentials.iterations_B,
        solved.loop.converged(error_B),
        solved.problem.epsilon,
        solved.choice,
    )


Solver = Callable[[Tensor, Tensor, Tensor | None, Tensor | None], Solved]


class _EnvelopeCost(torch.autograd.Function):
    """``<P, C>`` with P constant. Saves one finished gradient per input that needs one; no plan, no features."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, x_BND: Tensor, y_BMD: Tensor, a: Tensor | None, b: Tensor | None, solver: Solver
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        solved = solver(x_BND, y_BMD, a, b)
        problem, geometry = solved.problem, solved.problem.geometry
        f_BN, g_BM, _ = solved.potentials
        mass_BM = column_mass(problem, solved.operators, f_BN, g_BM)
        needs_x, needs_y, needs_a, needs_b, _ = ctx.needs_input_grad  # type: ignore[attr-defined]
        saved: list[Tensor | None] = [None] * 4
        if needs_y:
            product, mass_BN = solved.operators.apply_plan(f_BN, g_BM, geometry.p_BND, 0)
            inner = geometry.inner(product, "y")
            cost_B = geometry.total_cost(inner, mass_BN, mass_BM)
            saved[1] = _storable(geometry.pull_back(product, inner, mass_BM, "y"), y_BMD)
        if needs_x or not needs_y:
            product, mass_BN = solved.operators.apply_plan(f_BN, g_BM, geometry.q_BMD, 1)
            inner = geometry.inner(product, "x")
            cost_B = geometry.total_cost(inner, mass_BN, mass_BM)
            saved[0] = _storable(geometry.pull_back(product, inner, mass_BN, "x"), x_BND) if needs_x else None
        if needs_a:
            saved[2] = _marginal_gradient(problem, f_BN, mass_BN, problem.a_BN, problem.b_BM)
        if needs_b:
            level = 0.0 if problem.transported_B1 is None else partial_level(problem, g_BM)
            saved[3] = _marginal_gradient(problem, g_BM - level, mass_BM, problem.b_BM, problem.a_BN)
        summary = summarise(problem, f_BN, g_BM, mass_BN, mass_BM, cost_B)
        return _finish(ctx, saved, (x_BND, y_BMD, a, b), solved, mass_BN, cost_B, summary)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_B: Tensor, *unused: Tensor) -> tuple[Tensor | None, ...]:
        return _scaled(ctx, grad_B)


class _ImplicitCost(torch.autograd.Function):
    """``<P, C>`` with P moving as the solution does; everything else as :class:`_EnvelopeCost`."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, x_BND: Tensor, y_BMD: Tensor, a: Tensor | None, b: Tensor | None, solver: Solver
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        solved = solver(x_BND, y_BMD, a, b)
        output = solved.output()
        product, mass_BN = solved.operators.apply_plan(output.f_BN, output.g_BM, solved.problem.geometry.q_BMD, 1)
        mass_BM = solved.problem.column_mass(output.g_BM)
        inner_BN = solved.problem.geometry.inner(product, "x")
        cost_B = solved.problem.geometry.total_cost(inner_BN, mass_BN, mass_BM)
        gradients = implicit_gradients(output, ctx.needs_input_grad[:4])  # type: ignore[attr-defined]
        summary = summarise(solved.problem, output.f_BN, output.g_BM, mass_BN, mass_BM, cost_B)
        return _finish(ctx, gradients, (x_BND, y_BMD, a, b), solved, mass_BN, cost_B, summary)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_B: Tensor, *unused: Tensor) -> tuple[Tensor | None, ...]:
        return _scaled(ctx, grad_B)


def _finish(
    ctx: FunctionCtx,
    gradients: list[Tensor | None],
    inputs: tuple[Tensor | None, ...],
    solved: Solved,
    mass_BN: Tensor,
    cost_B: Tensor,
    summary: PlanSummary,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Save finished gradients and return the value with diagnostics that carry none."""
    error_B = solved.problem.marginal_error(solved.potentials.f_BN, mass_BN)
    diagnostics = (summary.dual_cost_B, error_B, summary.effective_matches_B)
    ctx.save_for_backward(*gradients)  # type: ignore[arg-type]
    ctx.mark_non_differentiable(*diagnostics)
    ctx.input_dtypes = [None if t is None else t.dtype for t in inputs]  # type: ignore[attr-defined]
    return cost_B, *diagnostics


def _scaled(ctx: FunctionCtx, grad_B: Tensor) -> tuple[Tensor | None, ...]:
    grads = [
        None if gradient is None else (gradient * grad_B.view(-1, *[1] * (gradient.ndim - 1))).to(dtype)
        for gradient, dtype in zip(ctx.saved_tensors, ctx.input_dtypes, strict=True)  # type: ignore[attr-defined]
    ]
    return *grads, None


def _marginal_gradient(
    problem: TransportProblem, potential: Tensor, mass: Tensor, own: Tensor, other: Tensor
) -> Tensor:
    """Derivative of the dual value in one side's masses with potentials held, zero where there is no mass."""
    ratio = mass / own.masked_fill(own == 0, 1.0)
    slope = potential if problem.rho is None else -problem.rho * torch.expm1(potential / -problem.rho)
    return (slope - problem.epsilon_B1 * (ratio - other.sum(1, keepdim=True))).masked_fill(own == 0, 0.0)


def _storable(gradient: Tensor, like: Tensor) -> Tensor:
    """Kept in the input's dtype, except float16, where 1 / N underflows before the loss scale is applied."""
    return gradient if like.dtype == torch.float16 else gradient.to(like.dtype)


def _unrolled(settings: Settings, x_BND: Tensor, y_BMD: Tensor, *rest: Tensor | None) -> SinkhornCost:
    mask_x_BN, mask_y_BM = rest[:2]
    # The derivative in a mass of zero is one-sided, and left out by every mode.
    marginals = [m if m is None else torch.where(m == 0, m.detach(), m) for m in rest[2:]]
    problem = pose(settings, x_BND, y_BMD, mask_x_BN, mask_y_BM, *marginals)
    loop = Sinkhorn(settings.iterations)
    operators = DenseLog(problem)
    f_BN, g_BM, iterations_B = loop(operators)
    product, mass_BN = operators.apply_plan(f_BN, g_BM, problem.geometry.q_BMD, 1)
    # The product with q carries the gradient of P; the masses carry that of the additive terms.
    inner_BN = problem.geometry.inner(product, "x")
    mass_BM = problem.column_mass(g_BM)
    cost_B = problem.geometry.total_cost(inner_BN, mass_BN, mass_BM)
    with torch.no_grad():
        summary = summarise(problem, f_BN, g_BM, mass_BN, mass_BM, cost_B)
        error_B = problem.marginal_error(f_BN, mass_BN)
    return SinkhornCost(
        cost_B,
        summary.dual_cost_B,
        error_B,
        summary.effective_matches_B,
        iterations_B,
        loop.converged(error_B),
        problem.epsilon,
        Choice("dense", "log", "unrolled gradients are recorded through the dense log-domain loop"),
    )
