"""Which operators solve a problem: chosen by device, size and what float32 can hold, or forced; always explained.

A backend for another device joins in :func:`build`.
"""

import numbers
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from optical_scale.errors import TransportError
from optical_scale.transport import native
from optical_scale.transport.blockwise import Blockwise
from optical_scale.transport.dense import DenseExp, DenseLog, Streamed
from optical_scale.transport.geometry import CosineGeometry, CostName
from optical_scale.transport.operators import Operators
from optical_scale.transport.output import Choice
from optical_scale.transport.problem import RANGE_OVER_EPSILON, EpsilonMode, TransportProblem
from optical_scale.transport.triton import choice as triton

BackendName = Literal[
    "auto", "dense", "streamed", "blockwise", "triton", "triton_pairs", "triton_stored", "triton_tiles"
]
DomainName = Literal["auto", "log", "exp"]

# Largest cost range over epsilon at which exp(+-range / 2 epsilon) leaves room in float32: cosine at epsilon 0.02.
PLAIN_RANGE_OVER_EPSILON = 100.0
# Bytes that stored kernels may take; the log domain needs a temporary of the same size.
STORED_BYTES = 1 << 30
# Elements of one pair from which visiting pairs one by one is faster than batched products, without compiled sweeps.
_LARGE_PAIR = 1 << 14


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything about a solve except tokens and masses; arguments of :func:`.solve.solve`, which documents them."""

    epsilon: float | Tensor = 0.02
    epsilon_mode: EpsilonMode = "absolute"
    iterations: int = 20
    tolerance: float | None = None
    cost: CostName = "cosine"
    rho: float | None = None
    backend: BackendName = "auto"
    domain: DomainName = "auto"
    check: bool = True
    mass: float | Tensor | None = None
    relaxation: float = 1.0
    schedule: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        _check_numbers(self)
        if self.iterations < 1:
            raise TransportError(f"iterations is {self.iterations}; at least one is needed to define a plan")
        if self.tolerance is not None and not self.tolerance > 0:
            raise TransportError(
                f"tolerance is {self.tolerance}; expected a number above 0, or None to run all iterations"
            )
        if not 0 < self.relaxation < 2:
            raise TransportError(f"relaxation is {self.relaxation}; the iteration only converges between 0 and 2")
        if self.relaxation != 1 and self.mass is not None:
            raise TransportError("relaxation and mass exclude each other: the limits of a partial plan are not smooth")
        if any(not 1 <= factor < float("inf") for factor in self.schedule):
            raise TransportError(f"schedule is {self.schedule}; expected multiples of epsilon, each at least 1")
        for name, value, known in (
            ("epsilon_mode", self.epsilon_mode, ("absolute", "relative")),
            ("cost", self.cost, ("cosine", "sqeuclidean", "dot")),
            ("backend", self.backend, get_args(BackendName)),
            ("domain", self.domain, ("auto", "log", "exp")),
        ):
            if value not in known:
                raise TransportError(f"{name} is {value!r}; expected one of {', '.join(known)}")


def _check_numbers(settings: Settings) -> None:
    for name, kind, what in (
        ("iterations", numbers.Integral, "a whole number"),
        ("epsilon", numbers.Real | Tensor, "a number, or a tensor with one per pair"),
        ("mass", numbers.Real | Tensor | None, "a number, a tensor with one per pair, or None"),
        ("tolerance", numbers.Real | None, "a number or None"),
        ("rho", numbers.Real | None, "one number for all pairs, or None"),
        ("relaxation", numbers.Real, "a number"),
        ("schedule", tuple | list, "a tuple of numbers"),
    ):
        value = getattr(settings, name)
        entries = value if isinstance(value, tuple | list) else ()
        if not isinstance(value, kind) or not all(isinstance(entry, numbers.Real) for entry in entries):
            raise TransportError(f"{name} is {value!r} ({type(value).__name__}); expected {what}")


def choose(problem: TransportProblem, settings: Settings) -> tuple[Choice, Operators]:
    """Decide where and how to iterate.

    Reads no value from the device when the cost is cosine and epsilon is a number or relative; waits once otherwise.

    Args:
        problem: what is to be solved.
        settings: forced choices are obeyed.

    Returns:
        The explained choice and its operators.

    Raises:
        TransportError: the exp domain was forced but cannot hold this cost at this epsilon, or "streamed", which
            has no other domain, was.
    """
    if settings.backend.startswith("triton"):
        return _choose_triton(problem, settings)
    ratio = _range_over_epsilon(problem, settings)
    plain = ratio <= PLAIN_RANGE_OVER_EPSILON * (1 + 1e-6) and problem.geometry.plain
    shiftable = ratio <= RANGE_OVER_EPSILON * (1 + 1e-6)
    domain, backend = settings.domain, settings.backend
    stored = backend in ("dense", "streamed") or (backend == "auto" and _stored_bytes(problem) <= STORED_BYTES)
    holds = plain or (stored and shiftable)
    if domain == "exp" and not holds:
        limit = RANGE_OVER_EPSILON if stored else PLAIN_RANGE_OVER_EPSILON if problem.geometry.plain else 0.0
        raise TransportError(
            f"domain='exp' with backend {backend} and cost {settings.cost} holds cost range / epsilon up to {limit:g}, "
            f"found {ratio:.4g}; use {'a larger epsilon, or ' if limit else ''}domain='log' or 'auto'"
        )
    if domain == "auto":
        domain = "exp" if holds or backend == "streamed" else "log"
    if backend == "streamed" and (domain == "log" or not holds):
        raise TransportError(
            f"backend='streamed' iterates on scalings, which hold cost range / epsilon up to {RANGE_OVER_EPSILON:g}, "
            f"found {ratio:.4g} and domain {settings.domain!r}; use backend='dense' or 'blockwise'"
        )
    why = "backend forced"
    if backend == "auto":
        backend, why = _backend(problem, domain)
    if settings.domain == "auto":
        shifted = " with shifted kernel" if domain == "exp" and not plain else ""
        why += f"; cost range / epsilon is {ratio:.4g}, so {domain} domain{shifted}"
    return Choice(backend, domain, why), build(problem, backend, domain, settings.relaxation, shift=not plain)


def may_keep_products(problem: TransportProblem, settings: Settings) -> bool:
    """Whether a schedule's stages may share the products of all tokens beside the kernel that each stores."""
    stored = settings.backend in ("auto", "dense", "streamed")
    return stored and 2 * _stored_bytes(problem) <= STORED_BYTES


def fusable(
    settings: Settings, x: Tensor, y: Tensor, *rest: Tensor | None, longest: tuple[int, int] | None = None
) -> DomainName | None:
    """The domain in which one launch may do all of each pair, or None if it takes the general way.

    That launch does what most training steps ask for: balanced plans of cosine costs at one epsilon, a fixed number of
    iterations, values that nobody checks, no gradient to masses.

    Args:
        settings: of the solve, with a forced backend.
        x: (B, N, D) or packed (X, D), and what is tested of ``y`` likewise.
        y: the other side.
        rest: masks and masses.
        longest: tokens of the longest sides of packed pairs.
    """
    if settings.backend not in ("triton", "triton_pairs") or settings.check or settings.cost != "cosine":
        return None
    if isinstance(settings.epsilon, Tensor) or settings.epsilon_mode != "absolute" or settings.tolerance is not None:
        return None
    if settings.rho is not None or settings.mass is not None or settings.relaxation != 1 or settings.schedule:
        return None
    plain = 2.0 / settings.epsilon <= PLAIN_RANGE_OVER_EPSILON * (1 + 1e-6)
    if (settings.domain == "exp" and not plain) or any(t is not None and t.requires_grad for t in rest):
        return None
    if not triton.fits_one_launch(x, y, longest):
        return None
    return "exp" if plain and settings.domain != "log" else "log"


def build(problem: TransportProblem, backend: str, domain: str, relaxation: float, *, shift: bool) -> Operators:
    """The operators of a choice.

    Args:
        problem: the problem.
        backend: "dense", "streamed", "blockwise" or a tier of "triton".
        domain: "exp" or "log".
        relaxation: over-relaxation, one for none.
        shift: whether a stored kernel has to be shifted into range.
    """
    if backend.startswith("triton"):
        tier, _ = triton.choose_tier(problem, backend, log_domain=domain == "log")
        return triton.build(problem, tier, log_domain=domain == "log")
    if backend == "blockwise":
        return Blockwise(problem, log_domain=domain == "log", relaxation=relaxation)
    if domain == "log":
        return DenseLog(problem, relaxation=relaxation)
    return (Streamed if backend == "streamed" else DenseExp)(problem, shift=shift, relaxation=relaxation)


def _choose_triton(problem: TransportProblem, settings: Settings) -> tuple[Choice, Operators]:
    """The GPU's tiers: exponential domain where float32 holds plain scalings, the log domain otherwise."""
    if settings.relaxation != 1 or settings.mass is not None:
        raise TransportError(f"backend {settings.backend!r} has no relaxation and no partial mass; use 'dense'")
    ratio, additive = _range_over_epsilon(problem, settings), problem.geometry.column_BM is not None
    plain = ratio <= PLAIN_RANGE_OVER_EPSILON * (1 + 1e-6) and not additive
    if settings.domain == "exp" and not plain:
        raise TransportError(
            f"domain='exp' with backend {settings.backend} and cost {settings.cost} holds cost range / epsilon up to "
            f"{0.0 if additive else PLAIN_RANGE_OVER_EPSILON:g}, found {ratio:.4g}; use a larger epsilon, or "
            "domain='log' or 'auto'"
        )
    domain: DomainName = "exp" if settings.domain != "log" and plain else "log"
    tier, why = triton.choose_tier(problem, settings.backend, log_domain=domain == "log")
    if settings.domain == "auto":
        why += f"; cost range / epsilon is {ratio:.4g}, so {domain} domain"
    return Choice(f"triton_{tier}", domain, why), triton.build(problem, tier, log_domain=domain == "log")


def _backend(problem: TransportProblem, domain: str) -> tuple[BackendName, str]:
    (B, N), M = problem.a_BN.shape, problem.b_BM.shape[1]
    needed = _stored_bytes(problem) * (1 if domain == "exp" else 2)
    what = f"{needed / 2**20:.1f} MiB for {B} pairs of {N} x {M} is"
    if needed > STORED_BYTES:
        return "blockwise", f"{what} above {STORED_BYTES >> 20} MiB"
    what += f" within {STORED_BYTES >> 20} MiB"
    # The two products of a partial plan's iteration do not share a read of the kernel.
    if domain == "log" or problem.a_BN.device.type != "cpu" or problem.transported_B1 is not None:
        return "dense", what
    if native.usable(problem.a_BN):
        return "streamed", f"{what}, with compiled sweeps"
    return ("streamed", f"{what}, pairs are large") if N * M >= _LARGE_PAIR else ("dense", f"{what}, pairs are short")


def _stored_bytes(problem: TransportProblem) -> int:
    return problem.a_BN.numel() * problem.b_BM.shape[1] * problem.a_BN.element_size()


def _range_over_epsilon(problem: TransportProblem, settings: Settings) -> float:
    """The largest of the batch, without waiting for the device where it is known beforehand."""
    if settings.epsilon_mode == "relative":
        return RANGE_OVER_EPSILON
    if isinstance(problem.geometry, CosineGeometry) and not isinstance(settings.epsilon, Tensor):
        return 2.0 / settings.epsilon
    ratio_B = problem.geometry.cost_range() / problem.epsilon
    return float(ratio_B.max()) if len(ratio_B) else 0.0
