"""Token-level baselines for two tokenizers: the transport plan says which teacher tokens a student token stands for."""

import torch
from torch import Tensor
from torch.nn import functional

from optical_scale.batch import TokenStates
from optical_scale.losses.objective import LossOutput
from optical_scale.transport import SinkhornOutput, solve


class TokenMSE:
    """Mean over student tokens and dimensions of the squared distance to the token's share of the teacher.

    The target of student token j is ``sum_i P_ij t_i / sum_i P_ij``, the barycentre of the teacher's vectors under the
    plan between the two sides (cosine cost, uniform masses). Vectors are compared as they are, so lengths are learned
    too: on unit vectors the gradient would be that of transport itself. The target carries no gradient.

    Args:
        epsilon: entropic regularisation in units of the cosine distance.
        iterations: Sinkhorn iterations.
    """

    def __init__(self, epsilon: float = 0.02, iterations: int = 20) -> None:
        self.epsilon = epsilon
        self.iterations = iterations

    def __call__(self, teacher: TokenStates, student: TokenStates) -> LossOutput:
        """Loss of one micro-batch, with the marginal error and the effective matches per token as metrics."""
        plan = _align(teacher, student, self.epsilon, self.iterations)
        x_BND = teacher.x_BTD.detach().masked_fill(~teacher.mask_BT.unsqueeze(-1), 0.0)
        target_BMD = plan.barycentric(x_BND)
        error_BM = (student.x_BTD.to(target_BMD.dtype) - target_BMD).square().mean(-1)
        return _mean_over_tokens(error_BM, student, plan)


class TokenKL:
    """KL divergence of a student token's likenesses to the teacher's tokens from those of the teacher's own tokens.

    A token's likenesses are ``softmax(cos / temperature)`` over the teacher's tokens of the sentence, as self-attention
    relations are distilled by Wang et al. (2021, arXiv 2012.15828), but across two tokenizers: of student token j,
    ``q_j`` over ``cos(s_j, t_k)``; its target is ``sum_i P_ij p_i / sum_i P_ij``, with ``p_i`` over ``cos(t_i, t_k)``
    and P the plan of :class:`TokenMSE`. Only differences of cosines are learned. The target carries no gradient, and
    neither do the teacher's tokens.

    Args:
        epsilon: entropic regularisation of the alignment, in units of the cosine distance.
        iterations: Sinkhorn iterations.
        temperature: divides the cosines.
    """

    def __init__(self, epsilon: float = 0.02, iterations: int = 20, temperature: float = 0.1) -> None:
        self.epsilon = epsilon
        self.iterations = iterations
        self.temperature = temperature

    def __call__(self, teacher: TokenStates, student: TokenStates) -> LossOutput:
        """Loss of one micro-batch, with the marginal error and the effective matches per token as metrics."""
        plan = _align(teacher, student, self.epsilon, self.iterations)
        t_BND, s_BMD = teacher.detach().normalized(), student.normalized()
        own_BNN, found_BMN = (self._likenesses(x, t_BND, teacher.mask_BT) for x in (t_BND, s_BMD))
        target_BMN = plan.barycentric(own_BNN.exp())
        error_BM = functional.kl_div(found_BMN, target_BMN.to(found_BMN.dtype), reduction="none").sum(-1)
        return _mean_over_tokens(error_BM, student, plan)

    def _likenesses(self, x_BQD: Tensor, t_BND: Tensor, mask_BN: Tensor) -> Tensor:
        """Log-probabilities; at padding very small but finite, so that a target of zero makes zero of them."""
        scores_BQN = x_BQD @ t_BND.transpose(1, 2) / self.temperature
        floor = torch.finfo(scores_BQN.dtype).min / 4
        return functional.log_softmax(scores_BQN.masked_fill(~mask_BN.unsqueeze(1), floor), -1)


def _align(teacher: TokenStates, student: TokenStates, epsilon: float, iterations: int) -> SinkhornOutput:
    """The entropic plan without gradient; the student's tokens are its rows, whose barycentres are wanted."""
    return solve(
        student.x_BTD.detach(),
        teacher.x_BTD.detach(),
        student.mask_BT,
        teacher.mask_BT,
        epsilon=epsilon,
        iterations=iterations,
    )


def _mean_over_tokens(error_BM: Tensor, student: TokenStates, plan: SinkhornOutput) -> LossOutput:
    loss_B = error_BM.masked_fill(~student.mask_BT, 0.0).sum(1) / student.mask_BT.sum(1).clamp_min(1)
    metrics = {
        "marginal_error": plan.marginal_error_B.sum(),
        "effective_matches": plan.effective_matches().sum(),
    }
    return LossOutput(loss_B.sum(), len(student), metrics)
