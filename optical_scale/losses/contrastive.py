"""InfoNCE with the pairs of every rank as negatives, on dense and late-interaction scores."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from optical_scale.batch import TokenStates
from optical_scale.losses.in_batch import SAME, first_row, softmax_in_turns
from optical_scale.losses.maxsim import maxsim
from optical_scale.losses.objective import LossOutput, Moment
from optical_scale.runtime.collectives import (
    gather_integers,
    gather_rows,
    gather_rows_together,
    rows_of_ranks,
)


@dataclass(frozen=True, slots=True)
class Contrastive:
    """Symmetric cross-entropy over in-batch negatives (van den Oord et al. 2018, arXiv 1807.03748).

    Attributes:
        temperature: divides the scores.
        late_interaction: weight of the loss on MaxSim scores (Khattab and Zaharia 2020, arXiv 2004.12832), each divided
            by its number of query tokens so that it lies in [-1, 1] as a cosine does; the dense loss has weight 1.
        exchange: "turns" lets ranks take turns in showing their embeddings, and makes scores in blocks, twice; "gather"
            brings all embeddings to every rank, and keeps this rank's rows of the scores.
        rows: pairs of each rank, None to ask.
    """

    temperature: float = 0.05
    late_interaction: float = 0.0
    exchange: Literal["gather", "turns"] = "gather"
    rows: tuple[int, ...] | None = None

    def at(self, moment: Moment) -> "Contrastive":
        """The same, which need not ask for the rows."""
        return replace(self, rows=moment.rows)

    def __call__(self, teacher: TokenStates, student: TokenStates) -> LossOutput:
        """Loss of this rank's pairs against the pairs of all ranks; ranks may bring different numbers."""
        t_BD, s_BD = teacher.pooled(), student.pooled()
        counts = self.rows or rows_of_ranks(len(t_BD), t_BD.device)
        if self.exchange == "turns":
            loss, right = softmax_in_turns(t_BD, s_BD, counts, self.temperature)
            return LossOutput(loss, len(student), {"in_batch_accuracy": right})
        all_t_KD, all_s_KD = gather_rows_together([t_BD, s_BD], counts)
        first = first_row(counts)
        with torch.no_grad():
            same_BK = t_BD @ all_t_KD.T > SAME
            same_BK[torch.arange(len(t_BD)), first + torch.arange(len(t_BD))] = False
        dense, right = self._cross_entropy(s_BD @ all_t_KD.T, t_BD @ all_s_KD.T, same_BK, first)
        metrics = {"in_batch_accuracy": right}
        if not self.late_interaction:
            return LossOutput(dense, len(student), metrics)
        all_t, all_s = gather_tokens([teacher, student], counts)
        token, _ = self._cross_entropy(
            maxsim(*local_tokens(student), *all_t), maxsim(*local_tokens(teacher), *all_s), same_BK, first
        )
        return LossOutput(dense + self.late_interaction * token, len(student), metrics)

    def _cross_entropy(
        self, forward_BK: Tensor, reverse_BK: Tensor, same_BK: Tensor, first: int
    ) -> tuple[Tensor, Tensor]:
        target_B = first + torch.arange(len(forward_BK), device=forward_BK.device)
        forward_BK = (forward_BK / self.temperature).masked_fill(same_BK, -torch.inf)
        reverse_BK = (reverse_BK / self.temperature).masked_fill(same_BK, -torch.inf)
        loss = functional.cross_entropy(forward_BK, target_B, reduction="sum")
        loss = loss + functional.cross_entropy(reverse_BK, target_B, reduction="sum")
        right = forward_BK.detach().argmax(1) == target_B if len(target_B) else target_B
        return loss / 2, right.float().sum()


def local_tokens(states: TokenStates) -> tuple[Tensor, Tensor]:
    """Unit-length token vectors and their mask."""
    return states.normalized(), states.mask_BT


def gather_tokens(sides: list[TokenStates], counts: tuple[int, ...]) -> list[tuple[Tensor, Tensor]]:
    """Token vectors and masks of all ranks for each side, padded to the longest."""
    if len(counts) == 1:
        return [local_tokens(states) for states in sides]
    lengths = gather_integers([states.x_BTD.shape[1] for states in sides], sides[0].x_BTD.device)
    vectors, masks = [], []
    for states, all_lengths in zip(sides, lengths, strict=True):
        x_BTD, mask_BT = local_tokens(states)
        padding = max(all_lengths) - x_BTD.shape[1]
        # Vectors alone: packing them with anything else would copy them twice.
        vectors.append(gather_rows(functional.pad(x_BTD, (0, 0, 0, padding)), counts))
        masks.append(functional.pad(mask_BT, (0, padding)).float())
    return [(x_KTD, m_KT > 0) for x_KTD, m_KT in zip(vectors, gather_rows_together(masks, counts), strict=True)]
