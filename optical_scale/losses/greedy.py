"""Greedy token alignment, the token distillation of Dr.DECR (Li et al. 2021, arXiv 2112.08185)."""

from typing import Literal

import torch
from torch import Tensor

from optical_scale.batch import TokenStates
from optical_scale.losses.objective import LossOutput


class GreedyAlignment:
    """Mean cosine distance of each token to the nearest token of the other side.

    Nothing keeps all student tokens from choosing one teacher token, which is how this loss collapses; transport with
    fixed marginals cannot.

    Args:
        direction: whose tokens choose: "student", "teacher", or "both" for the mean of the two.
    """

    def __init__(self, direction: Literal["student", "teacher", "both"] = "student") -> None:
        self.direction = direction

    def __call__(self, teacher: TokenStates, student: TokenStates) -> LossOutput:
        """Loss of one micro-batch; where two tokens are equally near, the first is chosen."""
        cosine_BNM = teacher.normalized() @ student.normalized().transpose(1, 2)
        outside_BNM = ~(teacher.mask_BT.unsqueeze(2) & student.mask_BT.unsqueeze(1))
        # Below every cosine, and finite, so that a row without any partner has no infinite loss.
        cosine_BNM = cosine_BNM.masked_fill(outside_BNM, -2.0)
        losses = []
        if self.direction != "teacher":
            losses.append(_mean_distance(cosine_BNM.max(1).values, student.mask_BT))
        if self.direction != "student":
            losses.append(_mean_distance(cosine_BNM.max(2).values, teacher.mask_BT))
        return LossOutput(torch.stack(losses).mean(0).sum(), len(student), {})


def _mean_distance(best_BT: Tensor, mask_BT: Tensor) -> Tensor:
    return ((1.0 - best_BT) * mask_BT).sum(1) / mask_BT.sum(1).clamp_min(1)
