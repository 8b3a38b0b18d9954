"""What a solve returns: the potentials, the evidence of how well they solve the problem, and costs on demand."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

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


def summarise(
    problem: TransportProblem, f_BN: Tensor, g_BM: Tensor, mass_BN: Tensor, primal_cost_B: Tensor
) -> PlanSummary:
    """Costs and effective matches of the plan of two potentials, right after g was updated.

    With ``log(P_ij / a_i b_j) = (f_i + g_j - C_ij) / epsilon``, every sum of P times a logarithm splits into masses
    times potentials and ``<P, C>``.

    Args:
        problem: the problem.
        f_BN: row potentials.
        g_BM: column potentials.
        mass_BN: row sums of the plan.
        primal_cost_B: ``<P, C>``.

    Returns:
        Three (B,) tensors.
    """
    a_BN, b_BM, rho, epsilon_B = problem.a_BN, problem.b_BM, problem.rho, problem.epsilon
    mass_BM = problem.column_mass(g_BM)
    paired_B = (mass_BN * f_BN).sum(1) + (mass_BM * g_BM).sum(1)
    total_B = mass_BN.sum(1)
    excess_B = epsilon_B * (total_B - a_BN.sum(1) * b_BM.sum(1))
    entropic_B = paired_B - excess_B
    if rho is None:
        dual_B = (a_BN * f_BN).sum(1) + (b_BM * g_BM).sum(1) - excess_B
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
        operators: the backend, kept for the quantities below.
    """

    f_BN: Tensor
    g_BM: Tensor
    marginal_error_B: Tensor
    iterations_B: Tensor
    converged_B: Tensor
    choice: Choice
    problem: TransportProblem
    operators: Operators

    def apply_plan(self, values: Tensor, axis: int = 1) -> Tensor:
        """``P values`` for (B, M, E) values (axis 1), ``P^T values`` for (B, N, E) values (axis 0)."""
        return self._product(values, axis).values

    def barycentric(self, values: Tensor) -> Tensor:
        """The plan-weighted mean of (B, M, E) values for each row, (B, N, E); zero for rows without mass."""
        product, mass_BN = self._product(values, 1)
        return product / mass_BN.masked_fill(mass_BN == 0, 1.0).unsqueeze(-1)

    @torch.no_grad()
    def plan(self) -> Tensor:
        """The whole (B, N, M) plan. Allocates it whatever the backend."""
        problem = self.problem
        with full_precision(self.f_BN.device):
            cost_BNM = problem.geometry.cost()
        exponent = (self.f_BN[:, :, None] + self.g_BM[:, None, :]).sub_(cost_BNM)
        exponent.div_(problem.epsilon_B1.unsqueeze(2))
        # Weights go in as logarithms: entries between tokens without mass may exceed float32 before they vanish.
        exponent.add_(problem.a_BN.log()[:, :, None]).add_(problem.b_BM.log()[:, None, :])
        return exponent.exp_()

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

    @torch.no_grad()
    def effective_matches_per_row(self) -> Tensor:
        """``exp(entropy)`` of each normalised row of the plan, (B, N): 1 is a hard match, M is no information.

        One for rows without mass.
        """
        problem, geometry = self.problem, self.problem.geometry
        v_BM = (self.g_BM if geometry.column_BM is None else self.g_BM - geometry.column_BM) / problem.epsilon_B1
        v_BM = v_BM + torch.where(problem.b_BM > 0, problem.b_BM, torch.ones_like(problem.b_BM)).log()
        values = torch.cat([geometry.q_BMD, v_BM.unsqueeze(2)], 2)
        product, mass_BN = self._product(values, 1)
        inner_BN = geometry.scale * (geometry.p_BND * product[..., :-1]).sum(-1)
        u_BN = (self.f_BN - geometry.constant) / problem.epsilon_B1
        u_BN = u_BN if geometry.row_BN is None else u_BN - geometry.row_BN / problem.epsilon_B1
        # Sum over j of P_ij log(P_ij / a_i): u_i times the row's mass, and what depends on j.
        log_sum_BN = u_BN * mass_BN + inner_BN / problem.epsilon_B1 + product[..., -1]
        has_mass_BN = mass_BN > 0
        safe_BN = mass_BN.masked_fill(~has_mass_BN, 1.0)
        a_BN = problem.a_BN.masked_fill(~has_mass_BN, 1.0)
        entropy_BN = (safe_BN / a_BN).log() - log_sum_BN / safe_BN
        return entropy_BN.masked_fill(~has_mass_BN, 0.0).exp()

    @torch.no_grad()
    def _product(self, values: Tensor, axis: int) -> PlanProduct:
        with full_precision(self.f_BN.device):
            return self.operators.apply_plan(self.f_BN, self.g_BM, values.to(self.f_BN.dtype), axis)

    @torch.no_grad()
    def _primal(self) -> tuple[Tensor, Tensor]:
        geometry = self.problem.geometry
        product, mass_BN = self._product(geometry.q_BMD, 1)
        mass_BM = self.problem.column_mass(self.g_BM)
        return geometry.total_cost(geometry.inner(product, "x"), mass_BN, mass_BM), mass_BN

    @torch.no_grad()
    def _summary(self) -> PlanSummary:
        primal_B, mass_BN = self._primal()
        return summarise(self.problem, self.f_BN, self.g_BM, mass_BN, primal_B)
