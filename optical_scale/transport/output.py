"""What a solve returns: the potentials, the evidence of how well they solve the problem, and costs on demand."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from optical_scale.errors import TransportError
from optical_scale.transport.geometry import MatrixGeometry
from optical_scale.transport.operators import Operators, PlanProduct
from optical_scale.transport.precision import full_precision
from optical_scale.transport.problem import TransportProblem


class Choice(NamedTuple):
    """Which backend ran, in which domain, and why."""

    backend: str
    domain: str
    reason: str


class PlanSummary(NamedTuple):
    """Per-pair numbers that follow from potentials, masses and ``<P, C>`` without another pass over the plan."""

    dual_cost_B: Tensor
    entropic_cost_B: Tensor
    effective_matches_B: Tensor


def column_mass(problem: TransportProblem, operators: Operators, f_BN: Tensor, g_BM: Tensor) -> Tensor:
    """Column sums of the plan right after g was updated, (B, M); only a partial plan needs a pass for them."""
    if problem.transported_B1 is None:
        return problem.column_mass(g_BM)
    return operators.apply_plan(f_BN, g_BM, torch.ones_like(f_BN).unsqueeze(2), 0).values[..., 0]


def partial_level(problem: TransportProblem, g_BM: Tensor) -> Tensor:
    """The multiplier of the transported mass, (B, 1): g where columns are not full, which is its largest value."""
    return g_BM.masked_fill(problem.b_BM == 0, -torch.inf).amax(1, keepdim=True)


def summarise(
    problem: TransportProblem, f_BN: Tensor, g_BM: Tensor, mass_BN: Tensor, mass_BM: Tensor, primal_cost_B: Tensor
) -> PlanSummary:
    """Costs and effective matches of the plan of two potentials, right after g was updated.

    With ``log(P_ij / a_i b_j) = (f_i + g_j - C_ij) / epsilon``, every sum of P times a logarithm splits into masses
    times potentials and ``<P, C>``.

    Args:
        problem: the problem.
        f_BN: row potentials.
        g_BM: column potentials.
        mass_BN: row sums of the plan.
        mass_BM: column sums of the plan.
        primal_cost_B: ``<P, C>``.

    Returns:
        Three (B,) tensors.
    """
    a_BN, b_BM, rho, epsilon_B = problem.a_BN, problem.b_BM, problem.rho, problem.epsilon
    paired_B = (mass_BN * f_BN).sum(1) + (mass_BM * g_BM).sum(1)
    total_B = mass_BN.sum(1)
    excess_B = epsilon_B * (total_B - a_BN.sum(1) * b_BM.sum(1))
    entropic_B = paired_B - excess_B
    if rho is None:
        dual_B = (a_BN * f_BN).sum(1) + (b_BM * g_BM).sum(1) - excess_B
        if problem.transported_B1 is not None:
            unmoved_B1 = problem.transported_B1 - b_BM.sum(1, keepdim=True)
            dual_B = dual_B + (partial_level(problem, g_BM) * unmoved_B1).squeeze(1)
    else:
        gains_B = (a_BN * torch.expm1(f_BN / -rho)).sum(1) + (b_BM * torch.expm1(g_BM / -rho)).sum(1)
        dual_B = -rho * gains_B - excess_B
        entropic_B = entropic_B + rho * (_kl(mass_BN, a_BN) + _kl(mass_BM, b_BM))
    # Sum of P log P, then the mean entropy of the rows of P, each normalised to one.
    log_sum_B = (
        (paired_B - primal_cost_B) / epsilon_B + torch.xlogy(mass_BN, a_BN).sum(1) + torch.xlogy(mass_BM, b_BM).sum(1)
    )
    row_entropy_B = (torch.xlogy(mass_BN, mass_BN).sum(1) - log_sum_B) / total_B
    return PlanSummary(dual_B, entropic_B, row_entropy_B.exp())


def _kl(mass: Tensor, target: Tensor) -> Tensor:
    """Generalised Kullback-Leibler divergence of masses; nothing where the target, hence the plan, is zero."""
    ratio = torch.where(target > 0, mass / target.masked_fill(target == 0, 1.0), torch.ones_like(mass))
    return (torch.xlogy(mass, ratio) - mass + target).sum(1)


@dataclass(frozen=True)
class SinkhornOutput:
    """Solution of a batch of problems, without gradient; for one, see :func:`optical_scale.transport.sinkhorn_cost`.

    Attributes:
        f_BN: row potentials in units of the cost, zero for tokens without mass.
        g_BM: column potentials, the same.
        marginal_error_B: L1 distance of the plan's row masses from their target, as a share of the mass. Column
            masses are exact, because g was updated last.
        iterations_B: full iterations used, int64.
        converged_B: whether the tolerance was met, or 1e-2 when none was set.
        choice: the backend and domain that ran, and why.
        problem: what was solved, epsilon of each pair included.
        operators: the backend, kept for the quantities below, with the kernel if it stores one.
        plain: whether the loop began at zero, without schedule and over-relaxation.
    """

    f_BN: Tensor
    g_BM: Tensor
    marginal_error_B: Tensor
    iterations_B: Tensor
    converged_B: Tensor
    choice: Choice
    problem: TransportProblem
    operators: Operators
    plain: bool = True

    def apply_plan(self, values: Tensor, axis: int = 1) -> Tensor:
        """``P values`` for (B, M, E) values (axis 1), ``P^T values`` for (B, N, E) values (axis 0).

        Values of tokens without mass are not read. Raises :class:`TransportError` for another shape or axis.
        """
        return self._product(self._values(values, axis), axis).values

    def barycentric(self, values: Tensor) -> Tensor:
        """The plan-weighted mean of (B, M, E) values for each row, (B, N, E); zero for rows without mass."""
        product, mass_BN = self._product(self._values(values, 1), 1)
        return product / mass_BN.masked_fill(mass_BN == 0, 1.0).unsqueeze(-1)

    @torch.no_grad()
    def panels(self, elements: int = 1 << 20) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """The plan, some rows of every pair at a time.

        Args:
            elements: what a panel may hold; it has at least one row of every pair.

        Yields:
            Which rows, their part of the plan (B, R, M), and their costs (B, R, M).
        """
        problem = self.problem
        B, N, M = problem.geometry.shape
        step = max(1, elements // max(1, B * M))
        # Weights go in as logarithms: entries between tokens without mass may exceed float32 before they vanish.
        u_BN = self.f_BN / problem.epsilon_B1 + problem.a_BN.log()
        v_BM = self.g_BM / problem.epsilon_B1 + problem.b_BM.log()
        for start in range(0, N, step):
            rows = slice(start, min(N, start + step))
            with full_precision(self.f_BN.device):
                cost_BRM = problem.geometry.cost(rows.start, rows.stop)
            exponent_BRM = (cost_BRM / -problem.epsilon_B1.unsqueeze(2)).add_(u_BN[:, rows, None])
            yield rows, exponent_BRM.add_(v_BM[:, None, :]).exp_(), cost_BRM

    def plan(self) -> Tensor:
        """The whole (B, N, M) plan. Allocates it whatever the backend."""
        return torch.cat([plan_BRM for _, plan_BRM, _ in self.panels()], 1)

    def top_matches(self, k: int) -> tuple[Tensor, Tensor]:
        """The k columns that receive most from each row, found panel by panel.

        Args:
            k: how many; at most M.

        Returns:
            Shares of the row's mass (B, N, k), largest first, and column indices (B, N, k), int64. Rows without mass
            have shares of zero, and so have columns without mass, which appear where k is more than the others.
        """
        M = self.problem.b_BM.shape[1]
        if not isinstance(k, int) or not 1 <= k <= M:
            raise TransportError(f"k is {k!r}; expected an int between 1 and the {M} columns")
        shares, indices = [], []
        for _, plan_BRM, _ in self.panels():
            top = plan_BRM.topk(k, 2)
            mass_BR1 = plan_BRM.sum(2, keepdim=True)
            shares.append(top.values / mass_BR1.masked_fill(mass_BR1 == 0, 1.0))
            indices.append(top.indices)
        return torch.cat(shares, 1), torch.cat(indices, 1)

    def primal_cost(self) -> Tensor:
        """``<P, C>``, (B,): what distillation minimises."""
        return self._primal()[0]

    def dual_cost(self) -> Tensor:
        """The dual objective at (f, g), (B,). Its gradient in C is P exactly at convergence (Danskin)."""
        return self._summary().dual_cost_B

    def entropic_cost(self) -> Tensor:
        """The primal objective, (B,): ``<P, C> + epsilon KL(P | a b^T)``, plus both rho terms when unbalanced."""
        return self._summary().entropic_cost_B

    def effective_matches(self) -> Tensor:
        """Geometric mean over rows, weighted by mass, of :meth:`effective_matches_per_row`; (B,)."""
        return self._summary().effective_matches_B

    def effective_matches_per_row(self) -> Tensor:
        """``exp(entropy)`` of each normalised row of the plan, (B, N): 1 is a hard match, M is no information.

        One for rows without mass.
        """
        entropies = []
        for _, plan_BRM, _ in self.panels():
            mass_BR = plan_BRM.sum(2)
            safe_BR = mass_BR.masked_fill(mass_BR == 0, 1.0)
            entropies.append(safe_BR.log() - torch.xlogy(plan_BRM, plan_BRM).sum(2) / safe_BR)
        return torch.cat(entropies, 1).exp()

    def _values(self, values: Tensor, axis: int) -> Tensor:
        if axis not in (0, 1):
            raise TransportError(f"axis is {axis!r}; expected 1 for P values, 0 for the transpose of P")
        masses = self.problem.b_BM if axis == 1 else self.problem.a_BN
        if not isinstance(values, Tensor) or values.ndim != 3 or values.shape[:2] != masses.shape:
            found = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise TransportError(f"values are {found}; expected {tuple(masses.shape)} and a width, a vector per token")
        # A fill, not a product: padding may hold NaN.
        return values.masked_fill((masses == 0).unsqueeze(-1), 0.0)

    @torch.no_grad()
    def _product(self, values: Tensor, axis: int) -> PlanProduct:
        with full_precision(self.f_BN.device):
            return self.operators.apply_plan(self.f_BN, self.g_BM, values.to(self.f_BN.dtype), axis)

    @torch.no_grad()
    def _summary(self) -> PlanSummary:
        primal_B, mass_BN, mass_BM = self._primal()
        return summarise(self.problem, self.f_BN, self.g_BM, mass_BN, mass_BM, primal_B)

    @torch.no_grad()
    def _primal(self) -> tuple[Tensor, Tensor, Tensor]:
        """``<P, C>`` and the plan's masses."""
        geometry = self.problem.geometry
        with full_precision(self.f_BN.device):
            mass_BM = column_mass(self.problem, self.operators, self.f_BN, self.g_BM)
        if isinstance(geometry, MatrixGeometry):
            sums = [((plan * cost).sum((1, 2)), plan.sum(2)) for _, plan, cost in self.panels()]
            return torch.stack([cost_B for cost_B, _ in sums]).sum(0), torch.cat([mass for _, mass in sums], 1), mass_BM
        product, mass_BN = self._product(geometry.q_BMD, 1)
        return geometry.total_cost(geometry.inner(product, "x"), mass_BN, mass_BM), mass_BN, mass_BM
