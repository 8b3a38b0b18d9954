"""Phrase grounding: do the tokens of a phrase send their mass to where the picture shows what the phrase names?

The map of a phrase is the sum of the rows of its tokens in the transport plan between a caption and the patches of its
image. It is scored on the layout of Flickr30k-Entities (Plummer et al., ICCV 2015) by the pointing game and by recall
at an intersection over union of 0.5. A phrase with several boxes is pointed at when one of them is hit; its box is the
smallest around all of them, as in Plummer et al. (IJCV 2017); Kamath et al. (ICCV 2021) compare this with other rules.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from optical_scale.evaluation.encoding import EncodeImages, EncodeText, gather_shares, share_of
from optical_scale.evaluation.patch_maps import (
    MATCH,
    chance_box,
    chance_point,
    inside,
    mass_box,
    overlap,
    point_hit,
    union_box,
)
from optical_scale.evaluation.phrases import Phrases, Pictures, encode_phrases
from optical_scale.evaluation.ranking import Values
from optical_scale.evaluation.results import RetrievalResult
from optical_scale.records import Box, CaptionedImage
from optical_scale.regions import Boxes, TokenSpans, boxes_in_patches
from optical_scale.runtime.world import World
from optical_scale.transport import solve

POINTING, RECALL = "pointing", "R@IoU0.5"
WHOLE_PICTURE = "whole picture"
"""The baseline without a map: point at the centre, take the whole picture for the box."""
ITERATIONS = 50


def evaluate_grounding(
    images: Sequence[CaptionedImage],
    encode_texts: EncodeText,
    token_spans: TokenSpans,
    encode_images: EncodeImages,
    *,
    batch_size: int,
    world: World,
    epsilon: float = 0.02,
    box_share: float = 0.5,
    languages: Sequence[str] | None = None,
) -> list[RetrievalResult]:
    """Point at the phrases of every caption and draw a box around each, separately in each language.

    Phrases that name nothing visible, or whose entity has no box, are left out and counted. A phrase beyond the token
    limit of the text encoder is missed, and counted too. The order of ``images`` changes nothing.

    Args:
        images: with captions, phrases and regions; keys are unique.
        encode_texts: the text encoder.
        token_spans: the characters of its tokens.
        encode_images: the vision encoder; its patches are a square grid, row by row.
        batch_size: items per forward pass, and plans solved at a time.
        world: all its ranks must call; they share the encoding, the plans and the scoring.
        epsilon: entropic regularisation of the plan, in units of the cosine distance.
        box_share: of the greatest mass, what a patch needs to belong to the box.
        languages: of captions; None means all with a phrase to score, sorted.

    Returns:
        Per language one result over all phrases, ``grounding``, and where the data knows several entity types one for
        each, ``grounding:people``. A phrase of several types counts in each. Identical on every rank.

    Raises:
        EvaluationError: no phrase with a box in a language, two images with one key, a box outside its image, a phrase
            outside its caption, patches that are no square, or unusable vectors.
    """
    pictures, every = encode_phrases(
        "grounding",
        images,
        encode_texts,
        token_spans,
        encode_images,
        batch_size=batch_size,
        world=world,
        languages=languages,
    )
    results: list[RetrievalResult] = []
    for phrases in every:
        plans = _Plans(phrases, pictures, epsilon)
        results += _results(phrases, _score(phrases, plans, box_share, batch_size, world))
    return results


class _Plans:
    """Plans between captions and the patches of their images.

    Args:
        phrases: captions.
        pictures: images.
        epsilon: of the plans.
    """

    def __init__(self, phrases: Phrases, pictures: Pictures, epsilon: float) -> None:
        self.texts, self.owners, self.epsilon = phrases.encoded, phrases.owners, epsilon
        self.side, self.device = pictures.side, pictures.patches_IMD.device
        self._patches_IMD = pictures.patches_IMD

    def __call__(self, chosen: Sequence[int]) -> list[Tensor]:
        """Float64 (tokens, S, S) on the CPU for each caption at ``chosen``."""
        rows = [self.texts.span(i, i + 1).x_TD for i in chosen]
        x_BND = pad_sequence(rows, batch_first=True)
        lengths_B = torch.tensor([len(row) for row in rows], device=self.device)
        mask_BN = torch.arange(x_BND.shape[1], device=self.device) < lengths_B[:, None]
        y_BMD = self._patches_IMD[[self.owners[i] for i in chosen]]
        plan_BNM = solve(x_BND, y_BMD, mask_BN, epsilon=self.epsilon, iterations=ITERATIONS).plan().double().cpu()
        return [
            plan_NM[: len(row)].unflatten(1, (self.side, self.side))
            for plan_NM, row in zip(plan_BNM, rows, strict=True)
        ]


def _score(phrases: Phrases, plans: _Plans, box_share: float, batch_size: int, world: World) -> Values:
    """Scores of all targets in order, (P, 6): pointing and box of the plan, of chance, and without a map."""
    items, tokens = phrases.items, phrases.tokens
    share, side = share_of(len(items), world), plans.side
    width = max(len(item.targets) for item in items)
    mine_IWC = torch.zeros(len(share), width, 6, dtype=torch.float64)
    levels = cache(_without_map)
    own = [position for position in share if position < len(items)]
    for start in range(0, len(own), batch_size):
        chosen = own[start : start + batch_size]
        for position, plan_NSS in zip(chosen, plans(chosen), strict=True):
            image = items[position].image
            for number, target in enumerate(items[position].targets):
                rows = list(tokens[position][number])
                boxes_K4 = boxes_in_patches(target.boxes, image.width, image.height, side)
                hits = _hits(plan_NSS[rows].sum(0).numpy(), boxes_K4, box_share) if rows else (0.0, 0.0)
                level = levels(target.boxes, image.width, image.height, side)
                mine_IWC[position - share.start, number] = torch.tensor([*hits, *level], dtype=torch.float64)
    scores_IWC = gather_shares(mine_IWC.to(plans.device), world)[: len(items)].cpu().numpy()
    return np.concatenate([rows[: len(item.targets)] for rows, item in zip(scores_IWC, items, strict=True)])


def _hits(map_SS: Values, boxes_K4: Boxes, box_share: float) -> tuple[float, float]:
    """Pointing and box of a map."""
    found = overlap(mass_box(map_SS, box_share), union_box(boxes_K4))
    return point_hit(map_SS, boxes_K4), float(found >= MATCH)


def _without_map(boxes: tuple[Box, ...], width: int, height: int, side: int) -> tuple[float, float, float, float]:
    """Pointing and box by chance, then of the whole picture; captions of one image share their boxes."""
    boxes_K4 = boxes_in_patches(boxes, width, height, side)
    gold, whole = union_box(boxes_K4), np.array([0.0, 0.0, side, side])
    centre = float(inside(side / 2, side / 2, boxes_K4)[0])
    return chance_point(boxes_K4, side), chance_box(gold, side), centre, float(overlap(whole, gold) >= MATCH)


def _results(phrases: Phrases, scores_PC: Values) -> list[RetrievalResult]:
    """Over all phrases, then by entity type where there are several."""
    owners = np.array([item.image.key for item in phrases.items for _ in item.targets])
    rows = {"grounding": np.ones(len(owners), dtype=bool)}
    rows |= {f"grounding:{name}": np.array(chosen) for name, chosen in phrases.kinds().items()}
    results = []
    for evaluation, chosen in rows.items():
        values_PC = scores_PC[chosen]
        plan, chance, whole = (dict(zip((POINTING, RECALL), pair.tolist(), strict=True))
                               for pair in values_PC.mean(0).reshape(3, 2))  # fmt: skip
        results.append(
            RetrievalResult(
                evaluation,
                phrases.language,
                "transport_plan",
                "phrase_to_region",
                metrics=plan,
                chance=chance,
                queries=len(values_PC),
                documents=len(set(owners[chosen])),
                per_query={POINTING: values_PC[:, 0], RECALL: values_PC[:, 1]},
                baselines={WHOLE_PICTURE: whole},
                counted=dict(phrases.counted) if evaluation == "grounding" else {},
            )
        )
    return results
