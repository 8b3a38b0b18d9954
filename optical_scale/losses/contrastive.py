"""InfoNCE with the pairs and the negatives of every rank, on dense and late-interaction scores."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from optical_scale.batch import TokenStates
from optical_scale.losses.in_batch import SAME, first_row, softmax_in_turns
from optical_scale.losses.maxsim import maxsim
from optical_scale.losses.objective import LossOutput, Moment, Passages
from optical_scale.losses.weights import Weighting, embeddings, query_tokens
from optical_scale.runtime.collectives import (
    gather_integer_rows,
    gather_integers,
    gather_rows,
    gather_rows_together,
    rows_of_ranks,
)

_MIX = 0x1E3779B97F4A7C15
"""Odd, so that multiplying by it loses nothing of a digest."""


@dataclass(frozen=True, slots=True)
class Contrastive:
    """Cross-entropy over in-batch negatives (van den Oord et al. 2018, arXiv 1807.03748), and hard ones if there are.

    A student is compared with the teacher's side of all pairs and with all negatives of all ranks (Karpukhin et al.
    2020, arXiv 2004.04906); in the other direction a teacher's side is compared with all students. What is no negative:
    the same teacher embedding in another pair; and, where queries are known, a passage with the text of any passage
    that answers the same query in some pair of the batch.

    Attributes:
        temperature: divides the scores.
        dense: weight of the loss on dense scores.
        late_interaction: weight of the loss on MaxSim scores (Khattab and Zaharia 2020, arXiv 2004.12832), each divided
            by its number of query tokens so that it lies in [-1, 1] as a cosine does.
        symmetric: the mean of both directions; if not, students are compared with passages only.
        exchange: "turns" lets ranks take turns in showing their embeddings, and makes scores in blocks, twice; "gather"
            brings all embeddings to every rank, and keeps this rank's rows of the scores.
        token_weights: what a token counts in the means that make an embedding or a MaxSim score.
        rows: pairs of each rank, None to ask.
        passages: negatives and digests, None if there are none.
    """

    temperature: float = 0.05
    dense: float = 1.0
    late_interaction: float = 0.0
    symmetric: bool = True
    exchange: Literal["gather", "turns"] = "gather"
    token_weights: Weighting = "uniform"
    rows: tuple[int, ...] | None = None
    passages: Passages | None = None

    def at(self, moment: Moment) -> "Contrastive":
        """The same with what is known of the moment."""
        return replace(self, rows=moment.rows, passages=moment.passages)

    def __call__(self, teacher: TokenStates, student: TokenStates) -> LossOutput:
        """Loss of this rank's pairs against the pairs of all ranks; ranks may bring different numbers."""
        t_BD, s_BD = (embeddings(states, self.token_weights) for states in (teacher, student))
        counts = self.rows or rows_of_ranks(len(t_BD), t_BD.device)
        if self.exchange == "turns":
            loss, right = softmax_in_turns(t_BD, s_BD, counts, self.temperature)
            return LossOutput(self.dense * loss, len(student), {"in_batch_accuracy": right})
        all_t_KD, all_s_KD = gather_rows_together([t_BD, s_BD], counts)
        hidden = self._no_negatives(t_BD, all_t_KD, counts)
        first = first_row(counts)
        losses: list[tuple[float, tuple[Tensor, Tensor]]] = []
        if self.dense:
            forward_BC = s_BD @ torch.cat([all_t_KD, *self._hard_embeddings()]).T
            losses.append((self.dense, self._cross_entropy(forward_BC, t_BD @ all_s_KD.T, *hidden, first)))
        if self.late_interaction:
            all_t, all_s = gather_tokens([teacher, student], counts)
            ours = query_tokens(student, self.token_weights)
            forward_BC = torch.cat([maxsim(*ours, *passages) for passages in (all_t, *self._hard_tokens())], 1)
            reverse_BK = maxsim(*query_tokens(teacher, self.token_weights), *all_s) if self.symmetric else None
            losses.append((self.late_interaction, self._cross_entropy(forward_BC, reverse_BK, *hidden, first)))
        total = torch.stack([weight * loss for weight, (loss, _) in losses]).sum()
        return LossOutput(total, len(student), {"in_batch_accuracy": losses[0][1][1]})

    def _hard_embeddings(self) -> list[Tensor]:
        """Of the negatives of all ranks, if there are any."""
        if self.passages is None or not sum(self.passages.rows):
            return []
        return [gather_rows(embeddings(self.passages.negatives, self.token_weights), self.passages.rows)]

    def _hard_tokens(self) -> list[tuple[Tensor, Tensor]]:
        """The same with token vectors and their mask."""
        if self.passages is None or not sum(self.passages.rows):
            return []
        return gather_tokens([self.passages.negatives], self.passages.rows)

    @torch.no_grad()
    def _no_negatives(self, t_BD: Tensor, all_t_KD: Tensor, counts: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """What a student is not compared with, of pairs and negatives, and what a teacher's side is not."""
        own = torch.arange(len(t_BD)), first_row(counts) + torch.arange(len(t_BD))
        same_BK = t_BD @ all_t_KD.T > SAME
        if self.passages is None:
            same_BK[own] = False
            return same_BK, same_BK
        known = self.passages.queries
        all_K2 = gather_integer_rows(torch.stack([known.target_B, known.source_B], 1), counts)
        all_R1 = gather_integer_rows(known.negative_R[:, None], self.passages.rows)
        q_K, p_K = all_K2.unbind(1)
        answers_K = q_K * _MIX + p_K
        forward_BC = torch.isin(known.target_B[:, None] * _MIX + torch.cat([p_K, all_R1[:, 0]]), answers_K)
        reverse_BK = torch.isin(q_K * _MIX + known.source_B[:, None], answers_K) | same_BK
        forward_BC[:, : len(p_K)] |= same_BK
        for hidden in (forward_BC, reverse_BK):
            hidden[own] = False
        return forward_BC, reverse_BK

    def _cross_entropy(
        self, forward_BC: Tensor, reverse_BK: Tensor | None, hidden_BC: Tensor, hidden_BK: Tensor, first: int
    ) -> tuple[Tensor, Tensor]:
        target_B = first + torch.arange(len(forward_BC), device=forward_BC.device)
        forward_BC = (forward_BC / self.temperature).masked_fill(hidden_BC, -torch.inf)
        loss = functional.cross_entropy(forward_BC, target_B, reduction="sum")
        if self.symmetric and reverse_BK is not None:
            reverse_BK = (reverse_BK / self.temperature).masked_fill(hidden_BK, -torch.inf)
            loss = (loss + functional.cross_entropy(reverse_BK, target_B, reduction="sum")) / 2
        right = forward_BC.detach().argmax(1) == target_B if len(target_B) else target_B
        return loss, right.float().sum()


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
