"""The front door: builds the problem, runs the loop on the chosen operators, and returns the solution."""

from dataclasses import dataclass, replace
from itertools import groupby

import torch
from torch import Tensor

from optical_scale.errors import TransportError
from optical_scale.transport.choose import BackendName, DomainName, Settings, build, choose, may_keep_products
from optical_scale.transport.geometry import CostName
from optical_scale.transport.operators import Operators
from optical_scale.transport.output import Choice, SinkhornOutput
from optical_scale.transport.precision import full_precision
from optical_scale.transport.problem import EpsilonMode, TransportProblem, build_problem, check_shapes
from optical_scale.transport.sinkhorn import Potentials, Sinkhorn

Start = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Solved:
    """A problem with its backend and potentials, before anything is derived from them."""

    problem: TransportProblem
    operators: Operators
    potentials: Potentials
    loop: Sinkhorn
    choice: Choice
    plain: bool

    def output(self) -> SinkhornOutput:
        """The solution with its marginal error, which takes one product with the plan."""
        f_BN, g_BM, iterations_B = self.potentials
        error_B = self.problem.marginal_error(f_BN, self.operators.row_mass(f_BN, g_BM))
        return SinkhornOutput(
            f_BN=f_BN,
            g_BM=g_BM,
            marginal_error_B=error_B,
            iterations_B=iterations_B,
            converged_B=self.loop.converged(error_B),
            choice=self.choice,
            problem=self.problem,
            operators=self.operators,
            plain=self.plain,
        )


def solve(
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
) -> SinkhornOutput:
    """Solve a batch of entropic transport problems between token sets (Cuturi 2013; unbalanced: Chizat et al. 2018).

    Args:
        x_BND: (B, N, D) vectors of the first side, any floating dtype; computed in float32 (float64 stays float64).
        y_BMD: (B, M, D) vectors of the second side.
        mask_x_BN: bool, tokens that exist; what lies outside is never read. None means all.
        mask_y_BM: the same for the second side.
        marginal_x: (B, N) masses, zero allowed; None means uniform over the mask with sum one.
        marginal_y: (B, M) masses; a balanced problem needs the same sum as ``marginal_x``.
        epsilon: entropic strength in units of the cost, one number or one per pair (B,).
        epsilon_mode: "relative" multiplies epsilon by the standard deviation of each pair's costs between existing
            tokens; at least the range of those costs over 200, and 1e-4 for cosine.
        iterations: full iterations, or the most of them when ``tolerance`` is set.
        tolerance: marginal error, as a share of the mass, at which a pair stops; checked every ten iterations.
        cost: "cosine" 1 - cos, "sqeuclidean" |x - y|^2, "dot" -<x, y>.
        rho: KL strength that replaces the marginal constraints, one for all pairs; None means balanced.
        backend: "dense" stores a (B, N, M) array, "streamed" reads it once per iteration, "blockwise" recomputes row
            panels, "triton" are CUDA kernels (never yet run on a GPU); "auto" decides.
        domain: "exp" iterates on scalings, "log" on potentials; "auto" takes exp where float32 allows.
        check: validate values, and redo a solve that left float32's range in the log domain. Waits for the device.
        mass: what a partial plan moves (Benamou et al. 2015), one number or one per pair (B,). None means all of it.
        relaxation: over-relaxation of both updates (Thibault et al. 2021), below 2; 1 is Sinkhorn, less is slower.
        schedule: multiples of epsilon, one iteration each, that are run first: (8, 4, 2) approaches epsilon in halves.
        start: potentials (f_BN, g_BM) of an earlier, similar solve to continue from; None starts at zero.

    Returns:
        The solution, without gradient.

    Raises:
        TransportError: an ill-posed problem (see :func:`build_problem`), or a forced exp domain float32 cannot hold.
    """
    settings = Settings(
        epsilon, epsilon_mode, iterations, tolerance, cost, rho, backend, domain, check, mass, relaxation, schedule
    )
    tokens = (x_BND, y_BMD, mask_x_BN, mask_y_BM, marginal_x, marginal_y)
    check_shapes(*tokens)
    with torch.no_grad(), full_precision(x_BND.device):
        return run(settings, pose(settings, *tokens), start).output()


def pose(
    settings: Settings,
    x_BND: Tensor,
    y_BMD: Tensor,
    mask_x_BN: Tensor | None,
    mask_y_BM: Tensor | None,
    marginal_x: Tensor | None,
    marginal_y: Tensor | None,
) -> TransportProblem:
    """The problem that the settings and tokens describe; see :func:`build_problem`."""
    return build_problem(
        x_BND,
        y_BMD,
        mask_x_BN,
        mask_y_BM,
        marginal_x,
        marginal_y,
        cost=settings.cost,
        epsilon=settings.epsilon,
        epsilon_mode=settings.epsilon_mode,
        rho=settings.rho,
        check=settings.check,
        mass=settings.mass,
    )


def run(settings: Settings, problem: TransportProblem, start: Start | None = None) -> Solved:
    """Choose a backend and iterate; the part that :func:`solve` and the differentiable costs share.

    Args:
        settings: how to solve.
        problem: what to solve.
        start: potentials to start from, None for zero.

    Returns:
        Potentials and the operators that found them.

    Raises:
        TransportError: potentials of another shape, or a solve that left the range of its domain.
    """
    start = _started(problem, start, check=settings.check)
    annealed = _anneal(settings, problem, start)
    loop = Sinkhorn(settings.iterations, settings.tolerance)
    choice, operators = choose(problem, settings)
    potentials = _counted(loop(operators, annealed), settings)
    if settings.check and not _finite(potentials):
        if choice.domain == "log" or settings.domain == "exp":
            raise TransportError(
                f"potentials are not finite after {settings.iterations} iterations in the {choice.domain} domain; "
                f"use a larger epsilon{'' if choice.domain == 'log' else ' or domain=' + repr('log')}"
            )
        backend = "dense" if choice.backend == "streamed" else choice.backend
        operators = build(problem, backend, "log", settings.relaxation, shift=False)
        choice = Choice(backend, "log", f"{choice.reason}; its scalings left float32's range, so redone in log")
        potentials = _counted(loop(operators, start if _infinite(annealed) else annealed), settings)
        if not _finite(potentials):
            raise TransportError("potentials are not finite in the log domain either; use a larger epsilon")
    plain = start is None and not settings.schedule and settings.relaxation == 1
    return Solved(problem, operators, potentials, loop, choice, plain)


def _started(problem: TransportProblem, start: Start | None, *, check: bool) -> Start | None:
    if start is None:
        return None
    if not isinstance(start, tuple | list) or len(start) != 2 or not all(isinstance(one, Tensor) for one in start):
        raise TransportError(
            f"start is a {type(start).__name__}; expected two tensors: (output.f_BN, output.g_BM) of an earlier solve"
        )
    for name, given, masses in (("f", start[0], problem.a_BN), ("g", start[1], problem.b_BM)):
        if given.shape != masses.shape:
            raise TransportError(f"start {name} has shape {tuple(given.shape)}; expected {tuple(masses.shape)}")
        if check and not bool(torch.isfinite(given).all()):
            raise TransportError(f"start {name} is not finite; start from a solution, or from nothing")
    f_BN, g_BM = (given.detach().to(problem.a_BN) for given in start)
    return f_BN, g_BM


def _anneal(settings: Settings, problem: TransportProblem, start: Start | None) -> Start | None:
    """Run the schedule: one iteration per entry, each entry's potentials the start of the next."""
    if settings.schedule and may_keep_products(problem, settings):  # else every stage would multiply all tokens again
        problem = replace(problem, geometry=problem.geometry.multiplied())
    for factor, entries in groupby(settings.schedule):
        stage = replace(settings, epsilon=settings.epsilon * factor)
        _, operators = choose(problem.at_epsilon(problem.epsilon_B1 * factor), stage)
        start = Sinkhorn(len(list(entries)))(operators, start)[:2]
    return start


def _counted(potentials: Potentials, settings: Settings) -> Potentials:
    return potentials._replace(iterations_B=potentials.iterations_B + len(settings.schedule))


def _infinite(start: Start | None) -> bool:
    return start is not None and not bool(torch.isfinite(start[0]).all() & torch.isfinite(start[1]).all())


def _finite(potentials: Potentials) -> bool:
    return bool(torch.isfinite(potentials.f_BN).all() & torch.isfinite(potentials.g_BM).all())
