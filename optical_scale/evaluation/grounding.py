"""Phrase grounding: do the tokens of a phrase send their mass to where the picture shows what the phrase names?

The map of a phrase is the sum of the rows of its tokens in the transport plan between a caption and the patches of its
image. It is scored on the layout of Flickr30k-Entities (Plummer et al., ICCV 2015) by the pointing game and by recall
at an intersection over union of 0.5. A phrase with several boxes is pointed at when one of them is hit; its box is the
smallest around all of them, as in Plummer et al. (IJCV 2017); Kamath et al. (ICCV 2021) compare this with other rules.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from optical_scale.errors import EvaluationError
from optical_scale.evaluation.encoding import EncodedSet, EncodeImages, EncodeText, encode, gather_shares, share_of
from optical_scale.evaluation.image_text import sort_by_key
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
from optical_scale.evaluation.ranking import Values
from optical_scale.evaluation.results import RetrievalResult
from optical_scale.records import Box, Caption, CaptionedImage, Phrase
from optical_scale.regions import Boxes, TokenSpans, boxed_phrases, boxes_in_patches, fault, tokens_of
from optical_scale.runtime.world import World
from optical_scale.transport import solve

POINTING, RECALL = "pointing", "R@IoU0.5"
WHOLE_PICTURE = "whole picture"
"""The baseline without a map: point at the centre, take the whole picture for the box."""
ITERATIONS = 50


@dataclass(frozen=True, slots=True)
class _Target:
    """A phrase of a caption with its entity types and boxes in pixels."""

    phrase: Phrase
    kinds: tuple[str, ...]
    boxes: tuple[Box, ...]


@dataclass(frozen=True, slots=True)
class _Item:
    """A caption with at least one target, and its image."""

    image: CaptionedImage
    caption: Caption
    targets: tuple[_Target, ...]


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
    images = sort_by_key(images)
    if languages is None:
        languages = sorted({caption.language for image in images for caption in image.captions if caption.phrases})
    tables = {language: _collect(language, images) for language in languages}
    if not tables:
        raise EvaluationError(
            f"grounding: none of the captions of {len(images)} images has a phrase; expected phrases with boxes, as "
            "`optical-scale convert` writes them from Flickr30k-Entities"
        )
    used = list({item.image.key: item.image for items, _ in tables.values() for item in items}.values())
    patches = encode([image.image for image in used], encode_images, batch_size=batch_size, world=world)
    position = {image.key: i for i, image in enumerate(used)}
    results: list[RetrievalResult] = []
    for language, (items, counted) in tables.items():
        texts = [item.caption.text for item in items]
        encoded = encode(texts, encode_texts, batch_size=batch_size, world=world)
        tokens = _tokens(items, token_spans(texts), encoded)
        plans = _Plans(encoded, patches, [position[item.image.key] for item in items], epsilon)
        scores_PC = _score(items, tokens, plans, box_share, batch_size, world)
        cut = sum(not own for caption in tokens for own in caption)
        if cut:
            counted["missed, beyond the token limit"] = cut
        results += _results(language, items, scores_PC, counted)
    return results


def _collect(language: str, images: Sequence[CaptionedImage]) -> tuple[list[_Item], Counter[str]]:
    """Captions of a language with something to score, and how many phrases were left out for which reason."""
    items: list[_Item] = []
    counted: Counter[str] = Counter()
    for image in images:
        for caption in image.captions:
            if caption.language != language:
                continue
            boxed, left_out = boxed_phrases(image, caption)
            counted += left_out
            targets = []
            for phrase, boxes in boxed:
                if problem := fault(image, caption, phrase, boxes):
                    raise EvaluationError(f"grounding: {problem}")
                targets.append(_Target(phrase, tuple(dict.fromkeys(phrase.kind.split("/"))), boxes))
            if targets:
                items.append(_Item(image, caption, tuple(targets)))
    if not items:
        raise EvaluationError(
            f"grounding: language {language} has no phrase with a box in {len(images)} images "
            f"({counted.total()} phrases without); remove it, or convert a corpus with phrases and boxes"
        )
    return items, counted


def _tokens(
    items: Sequence[_Item], spans: Sequence[Sequence[tuple[int, int]]], encoded: EncodedSet
) -> list[list[list[int]]]:
    """For each caption and each of its targets the tokens that share a character with it, blanks aside."""
    found = []
    for item, own, length in zip(items, spans, encoded.lengths.tolist(), strict=True):
        assert len(own) == length, f"{length} token vectors for {len(own)} tokens; two different tokenizers?"
        found.append([tokens_of(target.phrase, item.caption.text, own) for target in item.targets])
    return found


class _Plans:
    """Plans between captions and the patches of their images.

    Args:
        texts: captions.
        patches: images.
        owners: the position of each caption's image.
        epsilon: of the plans.

    Raises:
        EvaluationError: the patches are no square.
    """

    def __init__(self, texts: EncodedSet, patches: EncodedSet, owners: Sequence[int], epsilon: float) -> None:
        counts = sorted(set(patches.lengths.tolist()))
        self.side = math.isqrt(counts[0])
        if counts != [self.side**2]:
            raise EvaluationError(
                f"grounding: the vision encoder gives {', '.join(map(str, counts))} patches of an image; expected the "
                "same square grid for each, after one class token"
            )
        self.texts, self.owners, self.epsilon = texts, owners, epsilon
        self.device = patches.x_TD.device
        self._patches_IMD = patches.x_TD.view(len(patches), counts[0], -1)

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


def _score(
    items: Sequence[_Item],
    tokens: Sequence[Sequence[Sequence[int]]],
    plans: _Plans,
    box_share: float,
    batch_size: int,
    world: World,
) -> Values:
    """Scores of all targets in order, (P, 6): pointing and box of the plan, of chance, and without a map."""
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


def _results(language: str, items: Sequence[_Item], scores_PC: Values, counted: Counter[str]) -> list[RetrievalResult]:
    """Over all phrases, then by entity type where there are several."""
    kinds = [target.kinds for item in items for target in item.targets]
    owners = np.array([item.image.key for item in items for _ in item.targets])
    names = sorted({kind for own in kinds for kind in own})
    rows = {"grounding": np.ones(len(kinds), dtype=bool)}
    if len(names) > 1:
        rows |= {f"grounding:{name}": np.array([name in own for own in kinds]) for name in names}
    results = []
    for evaluation, chosen in rows.items():
        values_PC = scores_PC[chosen]
        plan, chance, whole = (dict(zip((POINTING, RECALL), pair.tolist(), strict=True))
                               for pair in values_PC.mean(0).reshape(3, 2))  # fmt: skip
        results.append(
            RetrievalResult(
                evaluation,
                language,
                "transport_plan",
                "phrase_to_region",
                metrics=plan,
                chance=chance,
                queries=len(values_PC),
                documents=len(set(owners[chosen])),
                per_query={POINTING: values_PC[:, 0], RECALL: values_PC[:, 1]},
                baselines={WHOLE_PICTURE: whole},
                counted=dict(counted) if evaluation == "grounding" else {},
            )
        )
    return results
