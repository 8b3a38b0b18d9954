"""InfoNCE with the pairs of every rank as negatives, on dense and late-interaction scores."""

import torch
from torch import Tensor
from torch.nn import functional

from optical_scale.batch import TokenStates
from optical_scale.losses.maxsim import maxsim
from optical_scale.losses.objective import LossOutput
from optical_scale.runtime.collectives import gather_rows, largest_over_ranks, rows_of_ranks

# Two teacher embeddings closer than this belong to the same sentence, so neither is a negative of the other.
_SAME = 1.0 - 1e-5


class Contrastive:
    """Symmetric cross-entropy over in-batch negatives (van den Oord et al. 2018, arXiv 1807.03748).

    Args:
        temperature: divides the scores.
        late_interaction: weight of the loss on MaxSim scores (Khattab and Zaharia 2020, arXiv 2004.12832), each divided
            by its number of query tokens so that it lies in [-1, 1] as a cosine does; the dense loss has weight 1.
    """

    def __init__(self, temperature: float = 0.05, late_interaction: float = 0.0) -> None:
        self.temperature = temperature
        self.late_interaction = late_interaction

    def __call__(self, teacher: TokenStates, student: TokenStates) -> LossOutput:
        """Loss of this rank's pairs against the pairs of all ranks; ranks may bring different numbers."""
        t_BD, s_BD = teacher.pooled(), student.pooled()
        counts = rows_of_ranks(len(t_BD), t_BD.device)
        all_t_KD, all_s_KD = gather_rows(t_BD, counts), gather_rows(s_BD, counts)
        first = _first_row(counts)
        with torch.no_grad():
            same_BK = t_BD @ all_t_KD.T > _SAME
            same_BK[torch.arange(len(t_BD)), first + torch.arange(len(t_BD))] = False
        dense, right = self._cross_entropy(s_BD @ all_t_KD.T, t_BD @ all_s_KD.T, same_BK, first)
        metrics = {"in_batch_accuracy": right}
        if not self.late_interaction:
            return LossOutput(dense, len(student), metrics)
        all_t, all_s = _gather(teacher, counts), _gather(student, counts)
        token, _ = self._cross_entropy(
            maxsim(*_local(student), *all_t), maxsim(*_local(teacher), *all_s), same_BK, first
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


def _first_row(counts: tuple[int, ...]) -> int:
    """Index of this rank's first row among the gathered ones."""
    import torch.distributed as dist

    return sum(counts[: dist.get_rank()]) if len(counts) > 1 else 0


def _local(states: TokenStates) -> tuple[Tensor, Tensor]:
    return states.normalized(), states.mask_BT


def _gather(states: TokenStates, counts: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Token vectors and masks of all ranks, padded to the longest."""
    x_BTD, mask_BT = _local(states)
    padding = largest_over_ranks(x_BTD.shape[1], x_BTD.device) - x_BTD.shape[1]
    x_KTD = gather_rows(functional.pad(x_BTD, (0, 0, 0, padding)), counts)
    mask_KT = gather_rows(functional.pad(mask_BT, (0, padding)).float(), counts) > 0
    return x_KTD, mask_KT
