"""Losses over all pairs of all ranks that never hold the matrix of all scores.

Ranks take turns in showing their embeddings to all others, which score them against their own rows block by block. The
gradient is made in the forward pass: this rank's own part is kept, the visitor's is summed over ranks and sent home. So
backward multiplies by a scalar and needs no exchange; that scalar must be the same on all ranks, as it is when every
rank divides by the same global weight.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from optical_scale.runtime.collectives import my_rank, send_home, visits

# Two teacher embeddings closer than this belong to the same sentence, so neither is a negative of the other.
SAME = 1.0 - 1e-5
# Scores that exist at a time: 16 MiB in float32.
_BLOCK = 1 << 22


def first_row(counts: tuple[int, ...]) -> int:
    """Index of this rank's first row among those of all ranks."""
    return sum(counts[: my_rank()])


def softmax_in_turns(t_BD: Tensor, s_BD: Tensor, counts: tuple[int, ...], temperature: float) -> tuple[Tensor, Tensor]:
    """Symmetric InfoNCE (van den Oord et al. 2018; CLIP, Radford et al. 2021, arXiv 2103.00020).

    Args:
        t_BD: the teacher's unit-length embeddings of this rank's pairs.
        s_BD: the student's.
        counts: pairs of each rank.
        temperature: divides the cosines.

    Returns:
        The sum over this rank's pairs, and for how many the true pair scores highest, without gradient.
    """
    result: tuple[Tensor, Tensor] = _Softmax.apply(t_BD, s_BD, counts, temperature)  # type: ignore[no-untyped-call]
    return result


def sigmoid_in_turns(
    t_BD: Tensor, s_BD: Tensor, counts: tuple[int, ...], temperature: float, bias: float
) -> tuple[Tensor, Tensor]:
    """Sigmoid loss on every pair (Zhai et al. 2023, arXiv 2303.15343).

    Arguments as :func:`softmax_in_turns`; ``bias`` is added to the scaled cosines.

    Returns:
        The sum over this rank's students and all teachers, and how many students score their own teacher highest.
    """
    result: tuple[Tensor, Tensor] = _Sigmoid.apply(  # type: ignore[no-untyped-call]
        t_BD, s_BD, counts, temperature, bias
    )
    return result


class _Saved(torch.autograd.Function):
    """Backward for functions whose gradient was finished in forward."""

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        t_BD, s_BD = ctx.saved_tensors
        rest = (None,) * (len(ctx.needs_input_grad) - 2)
        return None if t_BD is None else t_BD * gradients[0], None if s_BD is None else s_BD * gradients[0], *rest


class _Softmax(_Saved):
    @staticmethod
    def forward(
        ctx: Any, t_BD: Tensor, s_BD: Tensor, counts: tuple[int, ...], temperature: float
    ) -> tuple[Tensor, Tensor]:
        # Side 0: students against visiting teachers; side 1: teachers against visiting students.
        own_2BD, shown_B2D = torch.stack([s_BD, t_BD]), torch.stack([t_BD, s_BD], 1)
        true_2B = (own_2BD * shown_B2D.transpose(0, 1)).sum(-1) / temperature
        total_2B = torch.full_like(true_2B, -torch.inf)
        rival_B = total_2B[0].clone()
        for visit in _visits(shown_B2D, counts):
            for columns in visit.blocks(len(s_BD)):
                scores_2BC = visit.scores(own_2BD, columns) / temperature
                visit.hide_same(scores_2BC, t_BD, columns)
                total_2B = torch.logaddexp(total_2B, scores_2BC.logsumexp(-1))
                visit.diagonal(scores_2BC, columns).fill_(-torch.inf)
                rival_B = torch.maximum(rival_B, scores_2BC[0].amax(-1))
        needs_t, needs_s, *_ = ctx.needs_input_grad
        to_t, to_s = torch.zeros_like(t_BD), torch.zeros_like(s_BD)
        for visit in _visits(shown_B2D, counts) if needs_t or needs_s else ():
            home_C2D = torch.zeros_like(visit.rows)
            for columns in visit.blocks(len(s_BD)):
                share_2BC = visit.scores(own_2BD, columns) / temperature
                visit.hide_same(share_2BC, t_BD, columns)
                share_2BC.sub_(total_2B.unsqueeze(-1)).exp_()
                visit.diagonal(share_2BC, columns).sub_(1.0)
                share_2BC.div_(2 * temperature)
                to_s += share_2BC[0] @ visit.rows[columns, 0]
                home_C2D[columns, 1] = share_2BC[1].T @ t_BD
                if needs_t:
                    to_t += share_2BC[1] @ visit.rows[columns, 1]
                    home_C2D[columns, 0] = share_2BC[0].T @ s_BD
            mine_B2D = send_home(home_C2D if needs_t else home_C2D[:, 1:].contiguous(), visit.rank)
            if mine_B2D is not None:
                to_s += mine_B2D[:, -1]
                to_t += mine_B2D[:, 0] if needs_t else 0.0
        ctx.save_for_backward(to_t if needs_t else None, to_s if needs_s else None)
        right = (true_2B[0] > rival_B).float().sum()
        ctx.mark_non_differentiable(right)
        return (total_2B - true_2B).sum() / 2, right


class _Sigmoid(_Saved):
    @staticmethod
    def forward(
        ctx: Any, t_BD: Tensor, s_BD: Tensor, counts: tuple[int, ...], temperature: float, bias: float
    ) -> tuple[Tensor, Tensor]:
        needs_t, needs_s, *_ = ctx.needs_input_grad
        to_t, to_s = torch.zeros_like(t_BD), torch.zeros_like(s_BD)
        true_B = (t_BD * s_BD).sum(-1)
        rival_B, loss = torch.full_like(true_B, -torch.inf), true_B.new_zeros(())
        for visit in _visits(t_BD.unsqueeze(1), counts):
            home_CD = torch.zeros_like(visit.rows[:, 0])
            for columns in visit.blocks(len(s_BD)):
                cosine_1BC = visit.scores(s_BD.unsqueeze(0), columns)
                visit.hide_same(cosine_1BC, t_BD, columns)
                # log sigmoid(z) of a true pair, log sigmoid(-z) of all others; a hidden one has z minus infinity.
                z_1BC = cosine_1BC / temperature + bias
                visit.diagonal(z_1BC, columns).neg_()
                loss += functional.softplus(z_1BC).sum()
                visit.diagonal(cosine_1BC, columns).fill_(-torch.inf)
                rival_B = torch.maximum(rival_B, cosine_1BC[0].amax(-1))
                push_1BC = z_1BC.sigmoid_().div_(temperature)
                visit.diagonal(push_1BC, columns).neg_()
                to_s += push_1BC[0] @ visit.rows[columns, 0]
                home_CD[columns] = push_1BC[0].T @ s_BD
            mine_BD = send_home(home_CD, visit.rank) if needs_t else None
            if mine_BD is not None:
                to_t += mine_BD
        ctx.save_for_backward(to_t if needs_t else None, to_s if needs_s else None)
        right = (true_B > rival_B).float().sum()
        ctx.mark_non_differentiable(right)
        return loss, right


class _Visit(NamedTuple):
    """One rank's rows, (C, sides, D), shown to this rank."""

    rank: int
    rows: Tensor

    def blocks(self, rows: int) -> list[slice]:
        """Parts of the visitor's rows whose scores against ``rows`` own rows fit into a block."""
        size = max(1, _BLOCK // max(1, rows * self.rows.shape[1]))
        return [slice(start, min(start + size, len(self.rows))) for start in range(0, len(self.rows), size)]

    def scores(self, own_SBD: Tensor, columns: slice) -> Tensor:
        """Inner products of own rows with the visitor's, side by side, (S, B, C)."""
        return own_SBD @ self.rows[columns].permute(1, 2, 0)

    def diagonal(self, scores_SBC: Tensor, columns: slice) -> Tensor:
        """A view of the entries of true pairs; empty when the visitor is another rank."""
        if self.rank != my_rank():
            return scores_SBC[..., :0]
        return scores_SBC[:, columns].diagonal(dim1=1, dim2=2)

    def hide_same(self, scores_SBC: Tensor, t_BD: Tensor, columns: slice) -> None:
        """Minus infinity where the visitor's teacher has this row's sentence, except for the pair itself."""
        same_BC = t_BD @ self.rows[columns, 0].T > SAME
        self.diagonal(same_BC.unsqueeze(0), columns).fill_(False)
        scores_SBC.masked_fill_(same_BC, -torch.inf)


def _visits(shown_BSD: Tensor, counts: tuple[int, ...]) -> Iterator[_Visit]:
    return (_Visit(rank, rows) for rank, rows in visits(shown_BSD.contiguous(), counts))
