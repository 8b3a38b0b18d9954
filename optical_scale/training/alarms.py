"""Watching for collapse: a student whose vectors are all alike may still have a good loss."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from optical_scale.batch import TokenStates
from optical_scale.errors import EngineError

# Two teacher embeddings closer than this belong to the same sentence.
_SAME = 1.0 - 1e-5


@torch.no_grad()
def health(teacher: TokenStates, student: TokenStates) -> dict[str, Tensor]:
    """Sums over pairs of what tells a collapsed student from a good one; pairs are compared within the micro-batch.

    ``token_variance`` is the variance of a sentence's unit token vectors, in [0, 1]; 0 when all its tokens are equal.
    ``uniformity`` is ``log mean exp(-2 |x - y|^2)`` over student embeddings of different sentences (Wang and Isola
    2020, arXiv 2005.10242), from 0, when all are equal, down to -4 for orthogonal ones. ``margin`` is the cosine of
    student and teacher minus the largest with another sentence's teacher. ``compared`` counts the pairs that the last
    two speak of: none, if a micro-batch holds one sentence only.
    """
    mask_BT1 = student.mask_BT.unsqueeze(-1)
    unit_BTD = student.normalized().masked_fill(~mask_BT1, 0.0)
    mean_BD = unit_BTD.sum(1) / mask_BT1.sum(1).clamp_min(1)
    t_BD, s_BD = teacher.pooled(), student.pooled()
    other_BB = t_BD @ t_BD.T <= _SAME
    score_BB = s_BD @ t_BD.T
    compared_B = other_BB.any(1)
    closeness_BB = (4.0 * (s_BD @ s_BD.T).clamp(-1.0, 1.0) - 4.0).exp().masked_fill(~other_BB, 0.0)
    mean_closeness = closeness_BB.sum() / other_BB.sum().clamp_min(1)
    count = compared_B.sum()
    rival_B = score_BB.masked_fill(~other_BB, -torch.inf).amax(1) if len(score_BB) else score_BB.sum(1)
    margin_B = (score_BB.diagonal() - rival_B).masked_fill(~compared_B, 0.0)
    return {
        "token_variance": (1.0 - mean_BD.square().sum(-1)).clamp_min(0.0).sum(),
        "uniformity": torch.where(count > 0, mean_closeness.log() * count, torch.zeros_like(mean_closeness)),
        "margin": margin_B.sum(),
        "compared": count.float(),
    }


def finish_health(values: dict[str, float]) -> dict[str, float]:
    """Averages over all pairs become averages over the compared ones; without any, there is nothing to report."""
    compared = values.pop("compared")
    for name in ("uniformity", "margin"):
        value = values.pop(name)
        if compared > 0:
            values[name] = value / compared
    return values


@dataclass(frozen=True, slots=True)
class Limit:
    """What a metric may not exceed or fall below."""

    metric: str
    above: float | None = None
    below: float | None = None

    def broken_by(self, value: float) -> bool:
        """Whether the value lies outside."""
        return (self.above is not None and value > self.above) or (self.below is not None and value < self.below)

    def __str__(self) -> str:
        sides = (("above", self.above), ("below", self.below))
        return " or ".join(f"{side} {limit:g}" for side, limit in sides if limit is not None)


class Alarms:
    """Stops a run whose metrics stay outside their limits.

    Every rank sees the same averages, so all raise together. Counting starts anew when a run continues.

    Args:
        limits: what to watch.
        after: consecutive logged steps outside a limit that stop the run.
    """

    def __init__(self, limits: Sequence[Limit] = (), after: int = 20) -> None:
        self.limits = limits
        self.after = after
        self._broken: Counter[Limit] = Counter()

    def check(self, step: int, values: Mapping[str, float]) -> None:
        """Look at the values of a logged step.

        Raises:
            EngineError: a limit has been broken ``after`` times in a row.
        """
        for limit in self.limits:
            if limit.metric not in values:  # as the margin where micro-batches hold one pair, or a tower's own loss
                continue
            value = values[limit.metric]
            self._broken[limit] = self._broken[limit] + 1 if limit.broken_by(value) else 0
            if self._broken[limit] >= self.after:
                raise EngineError(
                    f"step {step}: {limit.metric} is {value:.4g}, {limit} for {self.after} logged steps in a row: the "
                    "student may have collapsed. Lower the learning rate, warm up longer, add `mse` or "
                    "`contrastive` to the objective, or use a smaller epsilon; to go on nevertheless change or empty "
                    "alarms.limits"
                )
