"""Distillation of recorded scores of each query's own passages, best those of a cross-encoder.

The student's side of a pair is a query; its list is the teacher's side of the pair, which answers it, and the negatives
drawn for it. Queries know nothing of one another, so a batch may be split anywhere.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from optical_scale.batch import TokenStates
from optical_scale.losses.objective import LossOutput, Moment, Passages

Kind = Literal["maxsim", "dense"]


@dataclass(frozen=True, slots=True)
class ScoreKL:
    """KL(recorded | student) of two softmax distributions over each query's list, as ColBERTv2 and its like train.

    Santhanam et al. 2022, arXiv 2112.01488, section 3.2.

    Attributes:
        temperature: divides the student's scores, which lie in [-1, 1].
        score_temperature: divides the recorded scores.
        scores: "maxsim", divided by the number of query tokens, or "dense" cosines.
        passages: of the moment.
    """

    temperature: float = 0.05
    score_temperature: float = 1.0
    scores: Kind = "maxsim"
    passages: Passages | None = None

    def at(self, moment: Moment) -> "ScoreKL":
        """The same with the passages of the moment."""
        return replace(self, passages=moment.passages)

    def __call__(self, teacher: TokenStates, student: TokenStates) -> LossOutput:
        """Loss of this rank's queries, of which those without negatives or scores learn nothing.

        Metrics are how many learn, and for how many of these both sides put the same passage first.
        """
        assert self.passages is not None, "the configuration demands negatives"
        found_B, found_R = list_scores(teacher, student, self.passages, self.scores)
        known = self.passages.queries
        found_BL = _lists(found_B / self.temperature, found_R / self.temperature, known.owner_R)
        wanted_BL = _lists(
            known.scores_B / self.score_temperature, known.scores_R / self.score_temperature, known.owner_R
        )
        loss_B, first_B = _divergence(wanted_BL, found_BL)
        known_B = known.scores_B.isfinite() & (known.owner_R.bincount(minlength=len(student)) > 0)
        metrics = {"same_first": (first_B & known_B).float().sum(), "scored": known_B.float().sum()}
        return LossOutput(torch.where(known_B, loss_B, 0.0).sum(), len(student), metrics)


@dataclass(frozen=True, slots=True)
class MarginMSE:
    """Squared distance of margins (Hofstaetter et al. 2020, arXiv 2010.02666), a query's mean over its negatives.

    A margin is the score of the passage that answers minus that of a negative.

    Attributes:
        temperature: divides the student's scores, which lie in [-1, 1].
        scores: as of :class:`ScoreKL`.
        passages: of the moment.
    """

    temperature: float = 0.05
    scores: Kind = "maxsim"
    passages: Passages | None = None

    def at(self, moment: Moment) -> "MarginMSE":
        """The same with the passages of the moment."""
        return replace(self, passages=moment.passages)

    def __call__(self, teacher: TokenStates, student: TokenStates) -> LossOutput:
        """Loss of this rank's queries, of which those without negatives or scores learn nothing.

        Metrics are how many learn, and the sum over these of the share of margins that have the recorded sign.
        """
        assert self.passages is not None, "the configuration demands negatives"
        found_B, found_R = list_scores(teacher, student, self.passages, self.scores)
        known, owner_R = self.passages.queries, self.passages.queries.owner_R
        margin_R = (found_B[owner_R] - found_R) / self.temperature
        wanted_R = known.scores_B[owner_R] - known.scores_R
        known_R = wanted_R.isfinite()
        share_R = known_R / owner_R.bincount(minlength=len(student))[owner_R].clamp_min(1)
        agree_R = (margin_R.detach() > 0) == (wanted_R > 0)
        loss = (torch.where(known_R, margin_R - wanted_R, 0.0).square() * share_R).sum()
        return LossOutput(loss, len(student), {"same_order": (agree_R * share_R).sum(), "scored": share_R.sum()})


def list_scores(teacher: TokenStates, student: TokenStates, passages: Passages, kind: Kind) -> tuple[Tensor, Tensor]:
    """The student's score of each pair's own passage, (B,), and of each negative with its query, (R,)."""
    negatives, owner_R = passages.negatives, passages.queries.owner_R
    if kind == "dense":
        s_BD = student.pooled()
        return (s_BD * teacher.pooled()).sum(-1), (s_BD[owner_R] * negatives.pooled()).sum(-1)
    q_BQD, q_mask_BQ = student.normalized(), student.mask_BT
    own_B = _maxsim_of_rows(q_BQD, q_mask_BQ, teacher)
    return own_B, _maxsim_of_rows(q_BQD[owner_R], q_mask_BQ[owner_R], negatives)


def _maxsim_of_rows(q_BQD: Tensor, q_mask_BQ: Tensor, documents: TokenStates) -> Tensor:
    """Mean over query tokens of the best inner product with the document in the same row, (B,)."""
    scores_BQT = q_BQD @ documents.normalized().transpose(1, 2)
    best_BQ = scores_BQT.masked_fill(~documents.mask_BT[:, None], -torch.inf).amax(-1)
    weight_BQ = q_mask_BQ / q_mask_BQ.sum(1, keepdim=True).clamp_min(1)
    return (best_BQ * weight_BQ).sum(1)


def _lists(own_B: Tensor, own_R: Tensor, owner_R: Tensor) -> Tensor:
    """Each query's scores in a row, its own passage first, (B, 1 + most negatives); minus infinity fills up."""
    place_R = 1 + torch.arange(len(owner_R), device=owner_R.device) - torch.searchsorted(owner_R, owner_R)
    longest = int(place_R.max()) if len(place_R) else 0
    filled_BL = own_B.new_full((len(own_B), 1 + longest), -torch.inf)
    filled_BL = filled_BL.index_put((owner_R, place_R), own_R)
    return torch.cat([own_B[:, None], filled_BL[:, 1:]], 1)


def _divergence(wanted_BL: Tensor, found_BL: Tensor) -> tuple[Tensor, Tensor]:
    """KL(wanted | found) of each row, and whether both have the same first; rows with NaN have any finite value."""
    missing_BL = found_BL == -torch.inf
    wanted_BL = wanted_BL.nan_to_num(0.0, neginf=-torch.inf, posinf=torch.inf).masked_fill(missing_BL, -torch.inf)
    difference_BL = functional.log_softmax(wanted_BL, -1) - functional.log_softmax(found_BL, -1)
    loss_B = (wanted_BL.softmax(-1) * difference_BL.masked_fill(missing_BL, 0.0)).sum(-1)
    return loss_B, wanted_BL.argmax(-1) == found_BL.detach().argmax(-1)
