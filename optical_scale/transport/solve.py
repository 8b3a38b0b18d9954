"""The front door: picks a backend and a domain, says why, and runs the loop."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from optical_scale.errors import TransportError
from optical_scale.transport.blockwise import Blockwise
from optical_scale.transport.dense import DenseExp, DenseLog
from optical_scale.transport.geometry import CostName
from optical_scale.transport.operators import Operators
from optical_scale.transport.output import Choice, SinkhornOutput
from optical_scale.transport.precision import full_precision
from optical_scale.transport.problem import RANGE_OVER_EPSILON, EpsilonMode, TransportProblem, build_problem
from optical_scale.transport.sinkhorn import Potentials, Sinkhorn
from optical_scale.transport.triton import choice as triton

BackendName = Literal["auto", "dense", "blockwise", "triton", "triton_pairs", "triton_stored", "triton_tiles"]
DomainName = Literal["auto", "log", "exp"]

# Largest cost range over epsilon at which exp(+-range / 2 epsilon) leaves room in float32: cosine at epsilon 0.02.
PLAIN_RANGE_OVER_EPSILON = 100.0
# Bytes the dense backend may use for its stored array and one temporary.
DENSE_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything about a solve except the tokens; the arguments of :func:`solve`, which documents them."""

    epsilon: float | Tensor = 0.02
    epsilon_mode: EpsilonMode = "absolute"
    iterations: int = 20
    tolerance: float | None = None
    cost: CostName = "cosine"
    rho: float | None = None
    backend: BackendName = "auto"
    domain: DomainName = "auto"
    check: bool = True

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise TransportError(f"iterations is {self.iterations}; at least one is needed to define a plan")
        if self.tolerance is not None and not self.tolerance > 0:
            raise TransportError(
                f"tolerance is {self.tolerance}; expected a number above 0, or None to run all iterations"
            )
        for name, value, known in (
            ("epsilon_mode", self.epsilon_mode, ("absolute", "relative")),
            ("cost", self.cost, ("cosine", "sqeuclidean", "dot")),
            ("backend", self.backend, get_args(BackendName)),
            ("domain", self.domain, ("auto", "log", "exp")),
        ):
            if value not in known:
                raise TransportError(f"{name} is {value!r}; expected one of {', '.join(known)}")


@dataclass(frozen=True, slots=True)
class Solved:
    """A problem with its backend and potentials, before anything is derived from them."""

    problem: TransportProblem
    operators: Operators
    potentials: Potentials
    loop: Sinkhorn
    choice: Choice


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
        epsilon_mode: "relative" multiplies epsilon by the standard deviation of each pair's costs, never going below
            the cost's range over 200 (0.01 for cosine).
        iterations: full iterations, or the most of them when ``tolerance`` is set.
        tolerance: marginal error, as a share of the mass, at which a pair stops; checked every ten iterations.
        cost: "cosine" 1 - cos, "sqeuclidean" |x - y|^2, "dot" -<x, y>.
        rho: KL strength that replaces the marginal constraints; None means balanced.
        backend: "dense" stores a (B, N, M) array, "blockwise" recomputes row panels, "triton" are CUDA kernels in tiers
            that can be forced by name; "auto" decides by device and size.
        domain: "exp" iterates on scalings, "log" on potentials; "auto" takes exp where float32 allows.
        check: validate values, and redo a solve that left float32's range in the log domain. Waits for the device.

    Returns:
        The solution, without gradient.

    Raises:
        TransportError: an ill-posed problem (see :func:`build_problem`), or a forced exp domain float32 cannot hold.
    """
    settings = Settings(epsilon, epsilon_mode, iterations, tolerance, cost, rho, backend, domain, check)
    with torch.no_grad(), full_precision(x_BND.device):
        solved = run(settings, x_BND, y_BMD, mask_x_BN, mask_y_BM, marginal_x, marginal_y)
        f_BN, g_BM, iterations_B = solved.potentials
        error_B = solved.problem.marginal_error(f_BN, solved.operators.row_mass(f_BN, g_BM))
        return SinkhornOutput(
            f_BN=f_BN,
            g_BM=g_BM,
            marginal_error_B=error_B,
            iterations_B=iterations_B,
            converged_B=solved.loop.converged(error_B),
            choice=solved.choice,
            problem=solved.problem,
            operators=solved.operators,
        )


def run(
    settings: Settings,
    x_BND: Tensor,
    y_BMD: Tensor,
    mask_x_BN: Tensor | None,
    mask_y_BM: Tensor | None,
    marginal_x: Tensor | None,
    marginal_y: Tensor | None,
) -> Solved:
    """Build the problem, choose a backend, iterate; the part :func:`solve` and the differentiable cost share."""
    problem = build_problem(
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
    )
    loop = Sinkhorn(settings.iterations, settings.tolerance)
    choice, operators = choose(problem, settings)
    potentials = loop(operators)
    if settings.check and not _finite(potentials):
        if choice.domain == "log" or settings.domain == "exp":
            raise TransportError(
                f"potentials are not finite after {settings.iterations} iterations in the {choice.domain} domain; "
                "use a larger epsilon or domain='log'"
            )
        operators = _build(problem, choice.backend, "log", shift=False)
        choice = Choice(choice.backend, "log", f"{choice.reason}; its scalings left float32's range, so redone in log")
        potentials = loop(operators)
        if not _finite(potentials):
            raise TransportError("potentials are not finite in the log domain either; use a larger epsilon")
    return Solved(problem, operators, potentials, loop, choice)


def choose(problem: TransportProblem, settings: Settings) -> tuple[Choice, Operators]:
    """Decide where and how to iterate.

    Reads no value from the device when the cost is cosine and epsilon is a number or relative; waits once otherwise.

    Args:
        problem: what is to be solved.
        settings: forced choices are obeyed.

    Returns:
        The explained choice and its operators.

    Raises:
        TransportError: the exp domain was forced but cannot hold this cost at this epsilon.
    """
    if settings.backend.startswith("triton") or (settings.backend == "auto" and triton.preferred(problem)):
        return _choose_triton(problem, settings)
    (B, N), M = problem.a_BN.shape, problem.b_BM.shape[1]
    needed = 2 * B * N * M * problem.a_BN.element_size()
    backend, why = settings.backend, "backend forced"
    if settings.backend == "auto":
        backend = "dense" if needed <= DENSE_BYTES else "blockwise"
        relation = "within" if backend == "dense" else "above"
        why = f"{needed / 2**20:.1f} MiB for {B} pairs of {N} x {M} is {relation} {DENSE_BYTES >> 20} MiB"
    ratio = _range_over_epsilon(problem, settings)
    additive = problem.geometry.column_BM is not None
    plain = ratio <= PLAIN_RANGE_OVER_EPSILON * (1 + 1e-6) and not additive
    shift = not plain and backend == "dense" and ratio <= RANGE_OVER_EPSILON * (1 + 1e-6)
    if settings.domain == "exp" and not (plain or shift):
        limit = 0.0 if backend == "blockwise" and additive else PLAIN_RANGE_OVER_EPSILON
        limit = RANGE_OVER_EPSILON if backend == "dense" else limit
        raise TransportError(
            f"domain='exp' with backend {backend} and cost {settings.cost} holds cost range / epsilon up to {limit:g}, "
            f"found {ratio:.4g}; use a larger epsilon, or domain='log' or 'auto'"
        )
    domain = "exp" if settings.domain != "log" and (plain or shift) else "log"
    if settings.domain == "auto":
        why += f"; cost range / epsilon is {ratio:.4g}, so {domain} domain{' with shifted kernel' if shift else ''}"
    return Choice(backend, domain, why), _build(problem, backend, domain, shift=shift)


def _choose_triton(problem: TransportProblem, settings: Settings) -> tuple[Choice, Operators]:
    """The GPU's tiers: exponential domain where float32 holds plain scalings, the log domain otherwise."""
    ratio = _range_over_epsilon(problem, settings)
    plain = ratio <= PLAIN_RANGE_OVER_EPSILON * (1 + 1e-6) and problem.geometry.column_BM is None
    if settings.domain == "exp" and not plain:
        raise TransportError(
            f"domain='exp' with backend {settings.backend} and cost {settings.cost} holds cost range / epsilon up to "
            f"{PLAIN_RANGE_OVER_EPSILON if problem.geometry.column_BM is None else 0.0:g}, found {ratio:.4g}; "
            "use a larger epsilon, or domain='log' or 'auto'"
        )
    domain = "exp" if settings.domain != "log" and plain else "log"
    forced = "triton" if settings.backend == "auto" else settings.backend
    tier, why = triton.choose_tier(problem, forced, log_domain=domain == "log")
    if settings.domain == "auto":
        why += f"; cost range / epsilon is {ratio:.4g}, so {domain} domain"
    return Choice(f"triton_{tier}", domain, why), triton.build(problem, tier, log_domain=domain == "log")


def _build(problem: TransportProblem, backend: str, domain: str, *, shift: bool) -> Operators:
    if backend.startswith("triton"):
        tier, _ = triton.choose_tier(problem, backend, log_domain=domain == "log")
        return triton.build(problem, tier, log_domain=domain == "log")
    if backend == "blockwise":
        return Blockwise(problem, log_domain=domain == "log")
    return DenseLog(problem) if domain == "log" else DenseExp(problem, shift=shift)


def _range_over_epsilon(problem: TransportProblem, settings: Settings) -> float:
    """The largest of the batch, without waiting for the device where it is known beforehand."""
    if settings.epsilon_mode == "relative":
        return RANGE_OVER_EPSILON
    if settings.cost == "cosine" and not isinstance(settings.epsilon, Tensor):
        return 2.0 / settings.epsilon
    return float((problem.geometry.cost_range() / problem.epsilon).max())


def _finite(potentials: Potentials) -> bool:
    return bool(torch.isfinite(potentials.f_BN).all() & torch.isfinite(potentials.g_BM).all())
