"""OPTICAL's distillation loss (Huang, Yu and Allan, WSDM 2023, arXiv 2301.12566) and the family around it."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from optical_scale.batch import TokenStates
from optical_scale.losses.objective import LossOutput, Moment, Ramp
from optical_scale.losses.weights import Weighting, token_weights
from optical_scale.transport import SinkhornCost, sinkhorn_cost
from optical_scale.transport.problem import EpsilonMode


@dataclass(frozen=True, slots=True)
class OptimalTransport:
    """<P, C> summed over pairs: C the cosine distance of teacher and student tokens, P the entropic transport plan.

    The gradient treats P as constant, which by Danskin's theorem is the exact gradient of the entropic transport value.

    Attributes:
        epsilon: entropic regularisation in units of the cosine distance; a ramp changes it during training.
        iterations: Sinkhorn iterations, or proximal steps.
        epsilon_mode: "relative" multiplies epsilon by the standard deviation of each pair's cosines.
        solver: "ipot" is the inexact proximal point method (Xie et al. 2020, arXiv 1802.04307) with one inner
            iteration. Its step t multiplies the last plan by exp(-C / beta) and rescales, so its kernel is
            exp(-C t / beta): Sinkhorn at epsilon beta / t. With beta = iterations x epsilon it ends at epsilon.
        anneal: multiples of epsilon, one iteration each, that are run first.
        marginals: what mass a token has, without gradient.
        rho: strength of the penalty that replaces the marginal constraints (unbalanced), None for balanced.
        mass: share of the mass that a partial plan moves, None for all.
        debias: subtract half of the student's transport to itself (Feydy et al. 2019, arXiv 1810.08278). The teacher's,
            a constant, is left out unless the teacher learns too, so the loss may be negative. What is reported is then
            the dual value, the one that the gradient belongs to.
        order: weight of the squared distance of relative positions, (i + 1/2) / N - (j + 1/2) / M, in the cost.
    """

    epsilon: float | Ramp = 0.02
    iterations: int = 20
    epsilon_mode: EpsilonMode = "absolute"
    solver: Literal["sinkhorn", "ipot"] = "sinkhorn"
    anneal: tuple[float, ...] = ()
    marginals: Weighting = "uniform"
    rho: float | None = None
    mass: float | None = None
    debias: bool = False
    order: float = 0.0

    def at(self, moment: Moment) -> "OptimalTransport":
        """The same with the epsilon of an optimizer step."""
        return replace(self, epsilon=self.epsilon.at(moment.step)) if isinstance(self.epsilon, Ramp) else self

    def __call__(self, teacher: TokenStates, student: TokenStates) -> LossOutput:
        """Loss of one micro-batch, with the marginal error and the effective matches per token as metrics."""
        if not len(student):  # nothing has no spread and no range
            zero = student.x_BTD.float().sum()
            nothing = {name: zero.detach() for name in ("marginal_error", "effective_matches")}
            return LossOutput(zero, 0, nothing)
        cross = self._cost(teacher, student)
        loss_B = cross.cost_B
        if self.debias:
            loss_B = _dual(cross) - 0.5 * _dual(self._cost(student, student, cross.epsilon_B))
            if teacher.x_BTD.requires_grad:
                loss_B = loss_B - 0.5 * _dual(self._cost(teacher, teacher, cross.epsilon_B))
        metrics = {
            "marginal_error": cross.marginal_error_B.detach().sum(),
            "effective_matches": cross.effective_matches_B.detach().sum(),
        }
        return LossOutput(loss_B.sum(), len(student), metrics)

    def _cost(self, x: TokenStates, y: TokenStates, epsilon_B: Tensor | None = None) -> SinkhornCost:
        assert not isinstance(self.epsilon, Ramp), "ask for the objective of a step: at(moment)"
        absolute = epsilon_B is not None and self.epsilon_mode == "relative"
        same = x is y
        x_BND = self._vectors(x)
        y_BMD = x_BND if same else self._vectors(y)
        a_BN = token_weights(x, self.marginals, x.mask_BT)
        ipot = self.solver == "ipot"
        proximal = tuple(self.iterations / step for step in range(1, self.iterations)) if ipot else self.anneal
        return sinkhorn_cost(
            x_BND,
            y_BMD,
            x.mask_BT,
            y.mask_BT,
            marginal_x=a_BN,
            marginal_y=a_BN if same else token_weights(y, self.marginals, y.mask_BT),
            epsilon=epsilon_B if absolute and epsilon_B is not None else self.epsilon,
            epsilon_mode="absolute" if absolute else self.epsilon_mode,
            iterations=1 if ipot else self.iterations,
            cost="sqeuclidean" if self.order else "cosine",
            rho=self.rho,
            mass=self.mass,
            schedule=proximal,
        )

    def _vectors(self, states: TokenStates) -> Tensor:
        """Token vectors; with an order term unit vectors over sqrt 2 and the position times its root weight.

        The squared distance of two of those is 1 - cos + order (difference of positions)^2.
        """
        if not self.order:
            return states.x_BTD
        # A fill before the norm, because what padding holds, NaN included, must not reach the gradient.
        x_BTD = states.x_BTD.float() if states.x_BTD.dtype != torch.float64 else states.x_BTD
        x_BTD = x_BTD.masked_fill(~states.mask_BT.unsqueeze(-1), 0.0)
        unit_BTD = torch.nn.functional.normalize(x_BTD, dim=-1) / 2**0.5
        count_B1 = states.mask_BT.sum(1, keepdim=True).clamp_min(1)
        position_BT = (states.mask_BT.cumsum(1) - 0.5) / count_B1
        return torch.cat([unit_BTD, (position_BT * self.order**0.5).unsqueeze(-1).to(unit_BTD)], -1)


def _dual(cost: SinkhornCost) -> Tensor:
    """The dual value with the gradient of <P, C> at constant P, which is its own."""
    return cost.cost_B + (cost.dual_cost_B - cost.cost_B).detach()
