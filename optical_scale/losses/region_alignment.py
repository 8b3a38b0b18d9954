"""Phrases to regions: the tokens of a phrase attend to the patches of the boxes that it names."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from optical_scale.batch import PhraseRegions, TokenStates
from optical_scale.losses.objective import LossOutput, Moment


@dataclass(frozen=True, slots=True)
class RegionAlignment:
    """-log of the share of a phrase's mass that falls into its boxes, the mean over the phrases of a pair.

    Every teacher token divides its mass among the patches by a softmax of their cosines: the entropic transport plan
    with epsilon ``temperature`` whose patches may receive any mass. (Patches of equal mass, as in balanced transport,
    could not all go to a small box.) With A that plan and w_m <= 1 how much of patch m the boxes cover,

        loss = -log( 1/|T| sum_{n in T} sum_m A_nm w_m / max_m w_m )

    which is zero when all tokens T of the phrase attend to patches inside. It asks for the mass only, not for a map: a
    box also shows what the phrase does not name. Word-region alignment as in GLIP (Li et al. 2022, arXiv 2112.03857)
    and MDETR (Kamath et al. 2021, arXiv 2104.12763), with patches in place of proposals and the softmax over one image.

    Pairs without a phrase contribute nothing, and count as pairs: the loss is a mean over all pairs.

    Attributes:
        temperature: divides the cosines.
        regions: phrases of the micro-batch, None if it has none.
    """

    temperature: float = 0.05
    regions: PhraseRegions | None = None

    def at(self, moment: Moment) -> "RegionAlignment":
        """The same with the phrases of a micro-batch."""
        return replace(self, regions=moment.regions)

    def __call__(self, teacher: TokenStates, student: TokenStates) -> LossOutput:
        """Loss of one micro-batch, with the share of the mass in boxes and the pairs with a phrase as metrics."""
        regions, metrics = self.regions, ("mass_in_boxes", "pairs_with_phrases")
        if regions is None or not len(student):
            zero = student.x_BTD.flatten()[:0].float().sum()
            return LossOutput(zero, len(student), dict.fromkeys(metrics, zero.detach()))
        log_share_F = self._log_shares(teacher, student, regions)
        # Not torch.bincount, which would wait for the device.
        phrases_B = log_share_F.new_zeros(len(student)).index_add(0, regions.rows_F, torch.ones_like(log_share_F))
        weight_F = 1.0 / phrases_B[regions.rows_F]
        values = (log_share_F.detach().exp() * weight_F).sum(), (phrases_B > 0).to(log_share_F).sum()
        return LossOutput(-(log_share_F * weight_F).sum(), len(student), dict(zip(metrics, values, strict=True)))

    def _log_shares(self, teacher: TokenStates, student: TokenStates, regions: PhraseRegions) -> Tensor:
        """Log of each phrase's share inside its boxes, (F,)."""
        cosine_BNM = _unit(teacher) @ _unit(student).transpose(1, 2)
        scores_BNM = (cosine_BNM / self.temperature).masked_fill(~student.mask_BT.unsqueeze(1), -torch.inf)
        log_plan_FNM = scores_BNM.log_softmax(-1)[regions.rows_F]
        own_FN = _placed(regions.tokens_FN, teacher.mask_BT[regions.rows_F])
        covered_FM = _placed(regions.patches_FM, student.mask_BT[regions.rows_F])
        log_covered_FM = (covered_FM / covered_FM.amax(1, keepdim=True)).log()
        inside_FNM = log_plan_FNM + log_covered_FM.unsqueeze(1)
        inside_FNM = inside_FNM.masked_fill(~own_FN.unsqueeze(2), -torch.inf)
        return inside_FNM.flatten(1).logsumexp(1) - own_FN.sum(1).log()


def _unit(states: TokenStates) -> Tensor:
    # A fill before the norm, because what padding holds, NaN included, must not reach the gradient.
    x_BTD = states.x_BTD if states.x_BTD.dtype == torch.float64 else states.x_BTD.float()
    return functional.normalize(x_BTD.masked_fill(~states.mask_BT.unsqueeze(-1), 0.0), dim=-1)


def _placed(values_FK: Tensor, mask_FT: Tensor) -> Tensor:
    """Value k of every row at its k-th token of the mask, zero at the others."""
    order_FT = mask_FT.long().cumsum(1) - 1
    inside_FT = mask_FT & (order_FT < values_FK.shape[1])
    placed_FT = values_FK.gather(1, order_FT.clamp(0, values_FK.shape[1] - 1))
    return placed_FT.masked_fill(~inside_FT, 0)
