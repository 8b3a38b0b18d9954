"""Distillation of score lists, as in Translate-Distill (Yang et al. 2024, arXiv 2401.04810)."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from optical_scale.batch import TokenStates
from optical_scale.losses.contrastive import gather_tokens
from optical_scale.losses.maxsim import maxsim
from optical_scale.losses.objective import LossOutput, Moment
from optical_scale.losses.weights import Weighting, embeddings, query_tokens
from optical_scale.runtime.collectives import gather_rows, rows_of_ranks


@dataclass(frozen=True, slots=True)
class ListKL:
    """KL(teacher | student) of two softmax distributions over the English passages of all ranks' pairs.

    The teacher scores its own English side as query, the student its translation, both against the teacher's passages.
    The order of wrong passages is learned, of which a contrastive loss knows nothing. The teacher's scores carry no
    gradient; where the teacher learns, its passages do.

    Attributes:
        temperature: divides the scores, which lie in [-1, 1].
        scores: "maxsim", the mean over query tokens, or "dense" cosines.
        token_weights: what a token counts in either mean.
        rows: pairs of each rank, None to ask.
    """

    temperature: float = 0.05
    scores: Literal["maxsim", "dense"] = "maxsim"
    token_weights: Weighting = "uniform"
    rows: tuple[int, ...] | None = None

    def at(self, moment: Moment) -> "ListKL":
        """The same, which need not ask for the rows."""
        return replace(self, rows=moment.rows)

    def __call__(self, teacher: TokenStates, student: TokenStates) -> LossOutput:
        """Loss of this rank's queries; how often both sides agree on the first passage is a metric."""
        counts = self.rows or rows_of_ranks(len(student), student.x_BTD.device)
        teacher_BK, student_BK = self._scores(teacher, student, counts)
        target_BK = functional.log_softmax(teacher_BK.detach() / self.temperature, -1)
        found_BK = functional.log_softmax(student_BK / self.temperature, -1)
        loss = functional.kl_div(found_BK, target_BK, reduction="sum", log_target=True)
        agree = (teacher_BK.argmax(-1) == student_BK.argmax(-1)) if len(student) else torch.zeros(0)
        return LossOutput(loss, len(student), {"same_first": agree.float().sum().to(loss.device)})

    def _scores(self, teacher: TokenStates, student: TokenStates, counts: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Scores of the teacher's and of the student's queries."""
        if self.scores == "dense":
            t_BD, s_BD = (embeddings(states, self.token_weights) for states in (teacher, student))
            all_KD = gather_rows(t_BD, counts)
            return t_BD.detach() @ all_KD.detach().T, s_BD @ all_KD.T
        ((x_KTD, mask_KT),) = gather_tokens([teacher], counts)
        with torch.no_grad():
            teacher_BK = maxsim(*query_tokens(teacher, self.token_weights), x_KTD, mask_KT)
        return teacher_BK, maxsim(*query_tokens(student, self.token_weights), x_KTD, mask_KT)
