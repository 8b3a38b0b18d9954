"""All a solver may ask of a backend.

Half-steps are not part of the protocol on purpose. A backend owns whole iterations, so it may keep scalings instead of
potentials between them, read its kernel once for both halves, or run all of them in one launch.
"""

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from optical_scale.transport.problem import TransportProblem


class PlanProduct(NamedTuple):
    """The plan applied to values, and the plan's row sums, which the same pass gives for nothing."""

    values: Tensor
    mass_BN: Tensor


class Operators(Protocol):
    """What dense, blockwise and later kernels implement for one :class:`TransportProblem`.

    The plan of a pair of potentials is ``P_ij = a_i b_j exp((f_i + g_j - C_ij) / epsilon)``. Potentials of tokens
    without mass are zero by convention.
    """

    problem: TransportProblem

    def iterate(self, g_BM: Tensor, count: int, f_BN: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run ``count`` full iterations from g, each updating f then g; returns (f_BN, g_BM).

        The last update of g is never over-relaxed, so that the plan's column masses are exact. ``f_BN`` is what an
        over-relaxed first update of f starts from; without it that update is plain.
        """
        ...

    def row_mass(self, f_BN: Tensor, g_BM: Tensor) -> Tensor:
        """Row sums of the plan, (B, N)."""
        ...

    def apply_plan(self, f_BN: Tensor, g_BM: Tensor, values: Tensor, axis: int) -> PlanProduct:
        """``P values`` for (B, M, E) values and axis 1, ``P^T values`` for (B, N, E) values and axis 0."""
        ...


@runtime_checkable
class Skipping(Protocol):
    """A backend whose launches look at a flag on the device, so that nobody has to wait for it."""

    def iterate_some(self, g_BM: Tensor, count: int, active_B: Tensor) -> tuple[Tensor, Tensor]:
        """As ``iterate`` for pairs that are active (bool); what is returned for others means nothing."""
        ...


def damped(potential: Tensor, problem: TransportProblem) -> Tensor:
    """Apply the unbalanced factor ``rho / (rho + epsilon)``; the identity when balanced."""
    damping_B1 = problem.damping
    return potential if damping_B1 is None else potential * damping_B1


def scaling(mass: Tensor, kernel_product: Tensor, problem: TransportProblem, offset: Tensor | float) -> Tensor:
    """Half a Sinkhorn iteration in the exponential domain.

    Args:
        mass: (B, N) marginal of the side being updated.
        kernel_product: (B, N), the kernel times the other side's weighted scaling.
        problem: for damping.
        offset: the part of the potential that was absorbed into the kernel.

    Returns:
        ``a exp((f - offset) / epsilon)`` with ``f = damping (offset - epsilon log kernel_product)``.
    """
    damping_B1 = problem.damping
    if damping_B1 is None or problem.rho is None:
        return mass / kernel_product
    shrunk = mass * torch.exp(-offset / (problem.rho + problem.epsilon_B1))
    return shrunk * kernel_product.pow(-damping_B1)


def log_masses(mass: Tensor) -> Tensor:
    """``log mass``, minus infinity for zero, which is exact, with a derivative of zero there instead of NaN."""
    has_mass = mass > 0
    return torch.where(has_mass, mass, torch.ones_like(mass)).log().masked_fill(~has_mass, -torch.inf)


def row_potential(log_product_BN: Tensor, problem: TransportProblem) -> Tensor:
    """Row potential f from ``log sum_j b_j exp((g_j - C_ij) / epsilon)``: damped, or if partial at most zero."""
    f_BN = damped(-problem.epsilon_B1 * log_product_BN, problem)
    return f_BN if problem.transported_B1 is None else f_BN.clamp_max(0.0)


def column_potential(log_product_BM: Tensor, problem: TransportProblem) -> Tensor:
    """Column potential g from ``log sum_i a_i exp((f_i - C_ij) / epsilon)``.

    Column j of a partial plan holds ``b_j min(1, t exp(log_product_j))``, and t makes the sum over columns the
    transported mass. It is found exactly, by sorting (water-filling).
    """
    if problem.transported_B1 is None:
        return damped(-problem.epsilon_B1 * log_product_BM, problem)
    log_t_B1 = _water_level(log_product_BM, problem.b_BM, problem.transported_B1)
    return problem.epsilon_B1 * torch.minimum(-log_product_BM, log_t_B1)


def _water_level(log_product_BM: Tensor, b_BM: Tensor, mass_B1: Tensor) -> Tensor:
    """The log t with ``sum_j b_j min(1, t exp(log_product_j)) = mass``; infinite when every column is full."""
    log_product_BM = log_product_BM.masked_fill(b_BM == 0, -torch.inf)
    sorted_BM, order_BM = log_product_BM.sort(1, descending=True)
    b_BM = b_BM.gather(1, order_BM)
    # If the k best columns are full, the others share what is left. The first k that overfills no other is right.
    left_BM = mass_B1 - (b_BM.cumsum(1) - b_BM)
    log_rest_BM = torch.logcumsumexp((b_BM.log() + sorted_BM).flip(1), 1).flip(1)
    log_t_BM = left_BM.clamp_min(0.0).log() - log_rest_BM
    fits_BM = (log_t_BM + sorted_BM <= 0) & (left_BM > 0) & (b_BM > 0)
    first_B1 = fits_BM.to(torch.int8).argmax(1, keepdim=True)
    level_B1 = log_t_BM.gather(1, first_B1)
    return level_B1.masked_fill(~fits_BM.any(1, keepdim=True), torch.inf)


def row_scaling(product_BN: Tensor, problem: TransportProblem, offset: Tensor | float) -> Tensor:
    """``a exp((f - offset) / epsilon)`` from ``K v``; see :func:`scaling` for the offset."""
    u_BN = scaling(problem.a_BN, product_BN, problem, offset)
    if problem.transported_B1 is None:
        return u_BN
    return torch.minimum(u_BN, problem.a_BN * torch.exp(-offset / problem.epsilon_B1))


def column_scaling(product_BM: Tensor, problem: TransportProblem, offset: Tensor | float) -> Tensor:
    """``b exp((g - offset) / epsilon)`` from ``K^T u``."""
    if problem.transported_B1 is None:
        return scaling(problem.b_BM, product_BM, problem, offset)
    # g = offset + epsilon log(scaling / b), and the level concerns g itself.
    g_BM = column_potential(product_BM.log() - offset / problem.epsilon_B1, problem)
    return problem.b_BM * torch.exp((g_BM - offset) / problem.epsilon_B1)


def relaxed_scaling(next_: Tensor, previous: Tensor | None, relaxation: float) -> Tensor:
    """Over-relaxation (Thibault et al. 2021) of a scaling: geometric, because potentials mix linearly."""
    if relaxation == 1.0 or previous is None:
        return next_
    mixed = previous.pow(1.0 - relaxation) * next_.pow(relaxation)
    # 0^(1 - relaxation) is infinite; a token without mass has scaling zero.
    return mixed.masked_fill(next_ == 0, 0.0)


def relaxed_potential(next_: Tensor, previous: Tensor | None, relaxation: float) -> Tensor:
    """Over-relaxation of a potential."""
    return next_ if relaxation == 1.0 or previous is None else torch.lerp(previous, next_, relaxation)
