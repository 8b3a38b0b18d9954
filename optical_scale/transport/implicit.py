"""The derivative of ``<P, C>`` at the solution, by the implicit function theorem; memory of a panel, not of the plan.

With ``P = exp((phi_i + psi_j - C_ij) / epsilon)`` and the conditions on its marginals, a change of C moves the
potentials by the solution of a symmetric system ``H = [k D1, P; P^T, k D2]``: D1 and D2 hold the masses, k is one, or
``1 + epsilon / rho`` when unbalanced. One solve with the adjoint right side, the cost that each row and column pays,
gives multipliers lambda and mu, and the gradient in C is ``P (1 - (C - lambda_i - mu_j) / epsilon)``.
"""

import torch
from torch import Tensor

from optical_scale.transport.output import SinkhornOutput

# Conjugate gradients stop at this relative residual, or after this many products with the plan and its transpose.
_RESIDUAL = 1e-7
_STEPS = 500


@torch.no_grad()
def implicit_gradients(output: SinkhornOutput, needs: tuple[bool, ...]) -> list[Tensor | None]:
    """Gradients of ``<P, C>`` in x, y and both marginals.

    Args:
        output: a converged solution; the result is as accurate as its marginals.
        needs: which of the four are wanted.

    Returns:
        Four tensors, None where not wanted.
    """
    problem, geometry = output.problem, output.problem.geometry
    mass_BN, mass_BM = torch.zeros_like(output.f_BN), torch.zeros_like(output.g_BM)
    paid_BN, paid_BM = torch.zeros_like(mass_BN), torch.zeros_like(mass_BM)
    for rows, plan_BRM, cost_BRM in output.panels():
        mass_BN[:, rows] = plan_BRM.sum(2)
        mass_BM += plan_BRM.sum(1)
        paid_BRM = cost_BRM.mul_(plan_BRM)
        paid_BN[:, rows] = paid_BRM.sum(2)
        paid_BM += paid_BRM.sum(1)
    stiffness = 1.0 if problem.rho is None else 1.0 + problem.epsilon_B1 / problem.rho
    lambda_BN, mu_BM = _multipliers(output, stiffness * mass_BN, stiffness * mass_BM, paid_BN, paid_BM)
    results: list[Tensor | None] = [None] * 4
    if needs[0] or needs[1]:
        products = [torch.zeros_like(t) for t in (geometry.p_BND, geometry.q_BMD)]
        weight_BN, weight_BM = torch.zeros_like(mass_BN), torch.zeros_like(mass_BM)
        epsilon_B11 = problem.epsilon_B1.unsqueeze(2)
        for rows, plan_BRM, cost_BRM in output.panels():
            reduced_BRM = cost_BRM.sub_(lambda_BN[:, rows, None]).sub_(mu_BM[:, None, :]).div_(-epsilon_B11)
            plan_BRM.mul_(reduced_BRM.add_(1.0))
            weight_BN[:, rows] = plan_BRM.sum(2)
            weight_BM += plan_BRM.sum(1)
            products[0][:, rows] = torch.bmm(plan_BRM, geometry.q_BMD)
            products[1].baddbmm_(plan_BRM.transpose(1, 2), geometry.p_BND[:, rows])
        if needs[0]:
            results[0] = geometry.pull_back(products[0], geometry.inner(products[0], "x"), weight_BN, "x")
        if needs[1]:
            results[1] = geometry.pull_back(products[1], geometry.inner(products[1], "y"), weight_BM, "y")
    for place, multiplier, mass, own in ((2, lambda_BN, mass_BN, problem.a_BN), (3, mu_BM, mass_BM, problem.b_BM)):
        if needs[place]:
            results[place] = stiffness * multiplier * mass / own.masked_fill(own == 0, 1.0)
    return results


def _multipliers(
    output: SinkhornOutput, diagonal_BN: Tensor, diagonal_BM: Tensor, right_BN: Tensor, right_BM: Tensor
) -> tuple[Tensor, Tensor]:
    """Solve ``H [lambda; mu] = [right]`` by conjugate gradients on mu, preconditioned by its diagonal.

    The balanced system leaves a constant free that neither the plan's gradient nor a change of masses that keeps their
    sums equal can see.
    """
    inverse_BN = torch.where(diagonal_BN > 0, 1.0 / diagonal_BN, 0.0)
    inverse_BM = torch.where(diagonal_BM > 0, 1.0 / diagonal_BM, 0.0)

    def along(vector_BM: Tensor) -> Tensor:
        return output.apply_plan(vector_BM.unsqueeze(2), 1).squeeze(2)

    def across(vector_BN: Tensor) -> Tensor:
        return output.apply_plan(vector_BN.unsqueeze(2), 0).squeeze(2)

    def possible(residual_BM: Tensor) -> Tensor:
        # Rounding leaves residuals that no multipliers remove, and a search for those would follow the free constant.
        if output.problem.rho is not None:
            return residual_BM
        return residual_BM - diagonal_BM * (residual_BM.sum(1, keepdim=True) / diagonal_BM.sum(1, keepdim=True))

    residual_BM = possible(right_BM - across(inverse_BN * right_BN))
    mu_BM = torch.zeros_like(right_BM)
    direction_BM = preconditioned_BM = inverse_BM * residual_BM
    energy_B = (residual_BM * preconditioned_BM).sum(1, keepdim=True)
    enough_B = energy_B * _RESIDUAL**2
    for _ in range(_STEPS):
        if bool((energy_B <= enough_B).all()):
            break
        image_BM = diagonal_BM * direction_BM - across(inverse_BN * along(direction_BM))
        curvature_B = (direction_BM * image_BM).sum(1, keepdim=True)
        # A pair that is done, or whose direction the system cannot tell from one that changes nothing, stays.
        least_B = 8 * torch.finfo(mu_BM.dtype).eps * (diagonal_BM * direction_BM.square()).sum(1, keepdim=True)
        going_B = (energy_B > enough_B) & (curvature_B > least_B)
        step_B = torch.where(going_B, energy_B / curvature_B, 0.0)
        mu_BM = mu_BM + step_B * direction_BM
        residual_BM = possible(residual_BM - step_B * image_BM)
        preconditioned_BM = inverse_BM * residual_BM
        next_B = (residual_BM * preconditioned_BM).sum(1, keepdim=True)
        direction_BM = preconditioned_BM + torch.where(going_B, next_B / energy_B, 0.0) * direction_BM
        energy_B = torch.where(going_B, next_B, torch.zeros_like(next_B))
    return inverse_BN * (right_BN - along(mu_BM)), mu_BM
