"""Phrases of captions with their boxes, encoded: what grounding and entity retrieval start from."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from optical_scale.errors import EvaluationError
from optical_scale.evaluation.encoding import EncodedSet, EncodeImages, EncodeText, encode
from optical_scale.evaluation.image_text import sort_by_key
from optical_scale.records import Box, Caption, CaptionedImage, Phrase
from optical_scale.regions import TokenSpans, boxed_phrases, fault, tokens_of
from optical_scale.runtime.world import World

MISSED = "missed, beyond the token limit"


@dataclass(frozen=True, slots=True)
class Target:
    """A phrase of a caption with its entity types and boxes in pixels."""

    phrase: Phrase
    kinds: tuple[str, ...]
    boxes: tuple[Box, ...]


@dataclass(frozen=True, slots=True)
class Item:
    """A caption with at least one target, and its image."""

    image: CaptionedImage
    caption: Caption
    targets: tuple[Target, ...]


@dataclass(frozen=True, slots=True)
class Pictures:
    """Images with phrases to score.

    Attributes:
        images: ordered by key.
        patches_IMD: unit-length vectors of their patches, row by row.
        dense_ID: unit-length pooled embeddings.
        side: patches of a side; M is its square.
    """

    images: tuple[CaptionedImage, ...]
    patches_IMD: Tensor
    dense_ID: Tensor
    side: int


@dataclass(frozen=True, slots=True)
class Phrases:
    """The captions of one language.

    Attributes:
        language: its tag.
        items: captions with their targets.
        encoded: the same captions.
        tokens: of every caption, of every target, the tokens among the caption's; none beyond the token limit.
        owners: the position of each caption's image.
        counted: phrases that were left out or missed, by reason.
    """

    language: str
    items: tuple[Item, ...]
    encoded: EncodedSet
    tokens: tuple[tuple[tuple[int, ...], ...], ...]
    owners: tuple[int, ...]
    counted: Counter[str]

    @property
    def targets(self) -> list[Target]:
        """Of all captions in order."""
        return [target for item in self.items for target in item.targets]

    def kinds(self) -> dict[str, list[bool]]:
        """Which targets are of an entity type, where there are several; a phrase of two types is in both."""
        names = sorted({kind for target in self.targets for kind in target.kinds})
        return {name: [name in target.kinds for target in self.targets] for name in names} if len(names) > 1 else {}


def encode_phrases(
    what: str,
    images: Sequence[CaptionedImage],
    encode_texts: EncodeText,
    token_spans: TokenSpans,
    encode_images: EncodeImages,
    *,
    batch_size: int,
    world: World,
    languages: Sequence[str] | None,
) -> tuple[Pictures, Iterator[Phrases]]:
    """Collect and encode what has phrases with boxes; languages one after the other.

    Phrases that name nothing visible, or whose entity has no box, are left out and counted.

    Args:
        what: name of the evaluation, for errors.
        images: with captions, phrases and regions; keys are unique.
        encode_texts: the text encoder.
        token_spans: the characters of its tokens.
        encode_images: the vision encoder; its patches are a square grid, row by row.
        batch_size: items per forward pass.
        world: all its ranks must call.
        languages: of captions; None means all with a phrase, sorted.

    Raises:
        EvaluationError: no phrase with a box in a language, two images with one key, a box outside its image, a phrase
            outside its caption, patches that are no square, or unusable vectors.
    """
    images = sort_by_key(images)
    if languages is None:
        languages = sorted({caption.language for image in images for caption in image.captions if caption.phrases})
    tables = {language: _collect(what, language, images) for language in languages}
    if not tables:
        raise EvaluationError(
            f"{what}: none of the captions of {len(images)} images has a phrase; expected phrases with boxes, as "
            "`optical-scale convert` writes them from Flickr30k-Entities"
        )
    wanted = {item.image.key for items, _ in tables.values() for item in items}
    used = tuple(image for image in images if image.key in wanted)
    encoded = encode([image.image for image in used], encode_images, batch_size=batch_size, world=world)
    side = _side(what, encoded)
    pictures = Pictures(used, encoded.x_TD.view(len(used), side**2, -1), encoded.dense_ID, side)
    position = {image.key: i for i, image in enumerate(used)}

    def phrases() -> Iterator[Phrases]:
        for language, (items, counted) in tables.items():
            texts = [item.caption.text for item in items]
            captions = encode(texts, encode_texts, batch_size=batch_size, world=world)
            tokens = _tokens(items, token_spans(texts), captions)
            if cut := sum(not own for caption in tokens for own in caption):
                counted[MISSED] = cut
            owners = tuple(position[item.image.key] for item in items)
            yield Phrases(language, tuple(items), captions, tokens, owners, counted)

    return pictures, phrases()


def _collect(what: str, language: str, images: Sequence[CaptionedImage]) -> tuple[list[Item], Counter[str]]:
    """Captions of a language with something to score, and how many phrases were left out for which reason."""
    items: list[Item] = []
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
                    raise EvaluationError(f"{what}: {problem}")
                targets.append(Target(phrase, tuple(dict.fromkeys(phrase.kind.split("/"))), boxes))
            if targets:
                items.append(Item(image, caption, tuple(targets)))
    if not items:
        raise EvaluationError(
            f"{what}: language {language} has no phrase with a box in {len(images)} images "
            f"({counted.total()} phrases without); remove it, or convert a corpus with phrases and boxes"
        )
    return items, counted


def _side(what: str, images: EncodedSet) -> int:
    """Patches of a side."""
    counts = sorted(set(images.lengths.tolist()))
    side = math.isqrt(counts[0])
    if counts != [side**2]:
        raise EvaluationError(
            f"{what}: the vision encoder gives {', '.join(map(str, counts))} patches of an image; expected the "
            "same square grid for each, after one class token"
        )
    return side


def _tokens(
    items: Sequence[Item], spans: Sequence[Sequence[tuple[int, int]]], encoded: EncodedSet
) -> tuple[tuple[tuple[int, ...], ...], ...]:
    found = []
    for item, own, length in zip(items, spans, encoded.lengths.tolist(), strict=True):
        assert len(own) == length, f"{length} token vectors for {len(own)} tokens; two different tokenizers?"
        found.append(tuple(tuple(tokens_of(target.phrase, item.caption.text, own)) for target in item.targets))
    return tuple(found)
