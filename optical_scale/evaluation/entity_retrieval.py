"""Entity-level retrieval: a phrase of a caption searches the regions of all images for the one that it names.

The query is the unit-length mean of the vectors that the phrase's tokens have within their caption; a region is the
unit-length mean of the patch vectors of its image, weighted by how much of each patch its boxes cover. The one relevant
item is the region of the phrase's entity, however many other regions "a man" would describe as well.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from optical_scale.evaluation.encoding import EncodedSet, EncodeImages, EncodeText
from optical_scale.evaluation.image_text import CUTOFFS
from optical_scale.evaluation.phrases import Phrases, Pictures, encode_phrases
from optical_scale.evaluation.results import Direction, RetrievalResult, summarise
from optical_scale.evaluation.scoring import Ranking, dense_ranks, maxsim_ranks
from optical_scale.records import CaptionedImage
from optical_scale.regions import TokenSpans, boxes_in_patches, coverage
from optical_scale.runtime.world import World

NAME = "entity_retrieval"


def evaluate_entities(
    images: Sequence[CaptionedImage],
    encode_texts: EncodeText,
    token_spans: TokenSpans,
    encode_images: EncodeImages,
    *,
    batch_size: int,
    world: World,
    languages: Sequence[str] | None = None,
) -> list[RetrievalResult]:
    """Search regions, and images by their best region, with the phrases of every caption, separately in each language.

    A language's collection are the regions that its phrases name. A phrase beyond the token limit of the text encoder
    counts as ranked last. The order of ``images`` changes nothing.

    Args:
        images: with captions, phrases and regions; keys are unique.
        encode_texts: the text encoder.
        token_spans: the characters of its tokens.
        encode_images: the vision encoder; its patches are a square grid, row by row.
        batch_size: items per forward pass.
        world: all its ranks must call; they share the encoding and the scoring.
        languages: of captions; None means all with a phrase to score, sorted.

    Returns:
        Per language two results over all phrases, ``phrase_to_region`` and ``phrase_to_image``, and where the data
        knows several entity types two for each, ``entity_retrieval:people``. Identical on every rank.

    Raises:
        EvaluationError: as :func:`~optical_scale.evaluation.phrases.encode_phrases`.
    """
    pictures, every = encode_phrases(
        NAME,
        images,
        encode_texts,
        token_spans,
        encode_images,
        batch_size=batch_size,
        world=world,
        languages=languages,
    )
    return [result for phrases in every for result in _language(pictures, phrases, world)]


def _language(pictures: Pictures, phrases: Phrases, world: World) -> list[RetrievalResult]:
    named: dict[int, set[str]] = {}
    for owner, item in zip(phrases.owners, phrases.items, strict=True):
        named.setdefault(owner, set()).update(target.phrase.entity for target in item.targets)
    entities = [(owner, entity) for owner in sorted(named) for entity in sorted(named[owner])]
    region = {entity: i for i, entity in enumerate(entities)}
    image = {owner: i for i, owner in enumerate(sorted(named))}
    regions_RD = torch.stack([_region(pictures, *entity) for entity in entities])
    queries, singles = _singles(_queries(phrases)), _singles(regions_RD)
    pairs = [(o, t.phrase.entity) for o, item in zip(phrases.owners, phrases.items, strict=True) for t in item.targets]
    missed = [not tokens for caption in phrases.tokens for tokens in caption]

    offsets = torch.tensor([0, *np.cumsum([len(named[owner]) for owner in image]).tolist()], device=regions_RD.device)
    # The regions of an image stand as its tokens, so that a query of one token finds its best region.
    grouped = EncodedSet(regions_RD, offsets, pictures.dense_ID[list(image)])
    searches: dict[Direction, Ranking] = {
        "phrase_to_region": dense_ranks(queries, singles, [[region[pair]] for pair in pairs], top_k=1, world=world),
        "phrase_to_image": maxsim_ranks(queries, grouped, [[image[o]] for o, _ in pairs], top_k=1, world=world),
    }
    results = []
    for part, chosen in {"": [True] * len(pairs), **phrases.kinds()}.items():
        name = f"{NAME}:{part}" if part else NAME
        for direction, found in searches.items():
            ranks = [np.array([found.documents]) if missed[i] else found.ranks[i] for i in np.flatnonzero(chosen)]
            result = summarise(name, phrases.language, "dense", direction, ranks, found.documents, CUTOFFS)
            results.append(result if part else replace(result, counted=dict(phrases.counted)))
    return results


def _region(pictures: Pictures, owner: int, entity: str) -> Tensor:
    """Unit-length vector of the patches that the boxes of an entity cover, (D,)."""
    image = pictures.images[owner]
    boxes_K4 = boxes_in_patches(image.regions[entity], image.width, image.height, pictures.side)
    weight_M = torch.from_numpy(coverage(boxes_K4, pictures.side)).to(pictures.patches_IMD)
    return functional.normalize(weight_M @ pictures.patches_IMD[owner], dim=0)


def _queries(phrases: Phrases) -> Tensor:
    """Unit-length means of the vectors of each phrase's tokens, (Q, D); zero without tokens."""
    rows = []
    for number, caption in enumerate(phrases.tokens):
        x_TD = phrases.encoded.span(number, number + 1).x_TD
        rows += [functional.normalize(x_TD[list(tokens)].sum(0), dim=0) for tokens in caption]
    return torch.stack(rows)


def _singles(x_ID: Tensor) -> EncodedSet:
    return EncodedSet(x_ID, torch.arange(len(x_ID) + 1, device=x_ID.device), x_ID)
