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

    def iterate(self, g_BM: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Run ``count`` full iterations from g, each updating f then g; returns (f_BN, g_BM)."""
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
