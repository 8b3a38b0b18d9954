"""From samples to tensors: which side is read by whom, which caption of an image and which negatives are used."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor

from optical_scale.batch import PairBatch, PatchBatch, Queries, TokenBatch
from optical_scale.errors import StreamError
from optical_scale.records import Caption, CaptionedImage, Record, TextPair
from optical_scale.runtime.seeding import derive_seed
from optical_scale.stream.frequencies import InverseDocumentFrequency
from optical_scale.stream.phrases import PhraseCollator
from optical_scale.stream.tokens import Ids, TokenisedPair

Tokenize = Callable[[Sequence[str]], TokenBatch]
BatchIds = Callable[[Sequence[Ids]], TokenBatch]
TransformImages = Callable[[Sequence[bytes]], PatchBatch]
Side = TokenBatch | PatchBatch

ENGLISH = "en"

_BLACK = (  # a PNG of one black pixel
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\0\0\0\0:~\x9bU"
    b"\0\0\0\nIDATx\x9cc`\0\0\0\2\0\1H\xaf\xa4q\0\0\0\0IEND\xaeB`\x82"
)


class PairCollator:
    """Turns records of one kind into a :class:`PairBatch`.

    A :class:`TextPair` gives its English side to ``tokenize_source`` and its other side to ``tokenize_target``. A
    :class:`CaptionedImage` gives one caption to ``tokenize_source`` and its encoded image to ``transform_images``; in
    epoch e the caption is number e modulo the number of captions in ``caption_language``, so that over the epochs all
    captions are used equally often and a resumed run uses the same ones. The negatives of a text pair take turns
    likewise, in an order of their own for each pair.

    Without ``tokenize_source`` the teacher reads images: the image is the source, and the caption, of any language,
    goes to ``tokenize_target``.

    Args:
        tokenize_source: text for the teacher; None if it reads images.
        tokenize_target: text for the student; None if it reads images.
        transform_images: JPEG or PNG bytes to pixels; needed for captioned images.
        batch_ids: of both sides, for pairs that know their token ids: pads them as ``tokenize_source`` and
            ``tokenize_target`` would.
        phrases: finds the phrases of captions and their boxes; None leaves them out.
        caption_language: which captions describe an image to the teacher; ``en`` also accepts ``en-GB``. None takes
            all.
        negatives: how many of each pair's negatives are used at a time; a pair with fewer gives all it has.
        idf: weighs the tokens of the English side, and those of the other by its language; images have no tokens.
        seed: decides the order of negatives.

    Raises:
        StreamError: fewer than two of the first three were given.
    """

    def __init__(
        self,
        tokenize_source: Tokenize | None,
        *,
        tokenize_target: Tokenize | None = None,
        transform_images: TransformImages | None = None,
        batch_ids: tuple[BatchIds, BatchIds] | None = None,
        phrases: PhraseCollator | None = None,
        caption_language: str | None = ENGLISH,
        negatives: int = 0,
        idf: tuple[InverseDocumentFrequency, InverseDocumentFrequency | None] | None = None,
        seed: int = 0,
    ) -> None:
        if sum(side is not None for side in (tokenize_source, tokenize_target, transform_images)) < 2:
            raise StreamError("a collator needs tokenize_target (text pairs) or transform_images (captioned images)")
        self.tokenize_source = tokenize_source
        self.tokenize_target = tokenize_target
        self.transform_images = transform_images
        self.batch_ids = batch_ids
        self.phrases = phrases
        self.caption_language = caption_language
        self.negatives = negatives
        self.idf = idf
        self.seed = seed

    def __call__(self, records: Sequence[Record], epochs: Sequence[int] | None = None) -> PairBatch:
        """Collate ``records``; ``epochs`` holds the epoch each was drawn in, all 0 when absent.

        Raises:
            StreamError: no records, both kinds in one batch, a kind this collator has no target for, or an image
                without a caption in the wanted language.
        """
        if not records:
            raise StreamError("cannot collate an empty list of records")
        pairs = [record for record in records if isinstance(record, TextPair)]
        images = [record for record in records if isinstance(record, CaptionedImage)]
        if pairs and images:
            raise StreamError(
                f"text pair {pairs[0].key!r} ({pairs[0].corpus}) and image {images[0].key!r} ({images[0].corpus}) met "
                "in one batch; train on text and on images in separate runs or streams"
            )
        epochs = [0] * len(records) if epochs is None else epochs
        return self._weighed(self._text(pairs, epochs) if pairs else self._images(images, epochs))

    def _weighed(self, batch: PairBatch) -> PairBatch:
        if self.idf is None:
            return batch
        english, other = self.idf
        assert isinstance(batch.source, TokenBatch), "weights are for a teacher of texts"
        source, target = english.weigh(batch.source, [ENGLISH] * len(batch.source)), batch.target
        if other is not None and isinstance(target, TokenBatch):
            target = other.weigh(target, batch.languages)
        return replace(batch, source=source, target=target)

    def blank(self) -> PairBatch:
        """One row without meaning and without key, of the kind this collator makes; see :class:`PairBatch`."""
        if self.tokenize_source is not None and self.tokenize_target is not None:
            return PairBatch(
                self.tokenize_source([""]), self.tokenize_target([""]), (), (), queries=_queries([], [], [])
            )
        return PairBatch(*self._sides([""], [_BLACK]), (), ())

    def _sides(self, captions: Sequence[str], images: Sequence[bytes]) -> tuple[Side, Side]:
        """What the teacher reads of captioned images, and what the student reads."""
        assert self.transform_images is not None
        if self.tokenize_source is not None:
            return self.tokenize_source(captions), self.transform_images(images)
        assert self.tokenize_target is not None
        return self.transform_images(images), self.tokenize_target(captions)

    def _text(self, pairs: Sequence[TextPair], epochs: Sequence[int]) -> PairBatch:
        if self.tokenize_source is None or self.tokenize_target is None:
            raise StreamError(f"{pairs[0].key!r} is a text pair, but this run reads images; use a corpus of images")
        known = [pair for pair in pairs if isinstance(pair, TokenisedPair)]
        drawn = [self._drawn(pair, epoch) for pair, epoch in zip(pairs, epochs, strict=True)]
        texts = [pair.negatives[at] for pair, places in zip(pairs, drawn, strict=True) for at in places]
        if self.batch_ids is not None and len(known) == len(pairs):
            source = self.batch_ids[0]([pair.source_ids for pair in known])
            target = self.batch_ids[1]([pair.target_ids for pair in known])
        else:
            source = self.tokenize_source([*(pair.source for pair in pairs), *texts])
            target = self.tokenize_target([pair.target for pair in pairs])
        assert len(source) - len(texts) == len(target) == len(pairs)
        queries = _queries(pairs, drawn, texts)
        return PairBatch(source, target, tuple(p.language for p in pairs), tuple(p.key for p in pairs), queries=queries)

    def _drawn(self, pair: TextPair, epoch: int) -> list[int]:
        """Which of its negatives are used: over the epochs all equally often."""
        most = len(pair.negatives)
        if most <= self.negatives:
            return list(range(most))
        order = np.random.default_rng(derive_seed(self.seed, "negatives", pair.key)).permutation(most)
        return [int(order[(epoch * self.negatives + turn) % most]) for turn in range(self.negatives)]

    def _images(self, images: Sequence[CaptionedImage], epochs: Sequence[int]) -> PairBatch:
        if self.transform_images is None:
            raise StreamError(f"{images[0].key!r} is an image, but this run reads text pairs; use a text corpus")
        captions = [self.caption(image, epoch) for image, epoch in zip(images, epochs, strict=True)]
        source, target = self._sides([caption.text for caption in captions], [image.image for image in images])
        assert len(source) == len(target) == len(images)
        regions = self.phrases(images, captions) if self.phrases is not None else None
        languages = tuple(caption.language for caption in captions)
        return PairBatch(source, target, languages, tuple(image.key for image in images), regions=regions)

    def texts(self, record: Record) -> list[str]:
        """All texts that may stand for ``record`` on the English side, or beside its image, in some epoch.

        Raises:
            StreamError: an image has no caption in ``caption_language``.
        """
        if isinstance(record, CaptionedImage):
            return [caption.text for caption in self.captions(record)]
        return [record.source, *(record.negatives if self.negatives else ())]

    def caption(self, image: CaptionedImage, epoch: int) -> Caption:
        """The caption that stands for ``image`` in ``epoch``.

        Raises:
            StreamError: the image has no caption in ``caption_language``.
        """
        captions = self.captions(image)
        return captions[epoch % len(captions)]

    def captions(self, image: CaptionedImage) -> list[Caption]:
        """The captions of ``image`` in ``caption_language``, at least one.

        Raises:
            StreamError: there is none.
        """
        wanted = self.caption_language
        captions = [
            c for c in image.captions if wanted is None or c.language == wanted or c.language.startswith(wanted + "-")
        ]
        if not captions:
            found = ", ".join(sorted({caption.language for caption in image.captions})) or "none"
            raise StreamError(
                f"image {image.key!r} ({image.corpus}) has no caption in {wanted!r}; its captions are in: {found}"
            )
        return captions


def _queries(pairs: Sequence[TextPair], drawn: Sequence[Sequence[int]], negatives: Sequence[str]) -> Queries:
    owners = [row for row, places in enumerate(drawn) for _ in places]
    unknown = float("nan")
    scores = [pair.scores or (unknown,) * (1 + len(pair.negatives)) for pair in pairs]
    return Queries(
        target_B=_digests([pair.target for pair in pairs]),
        source_B=_digests([pair.source for pair in pairs]),
        negative_R=_digests(negatives),
        owner_R=torch.tensor(owners, dtype=torch.int64),
        scores_B=torch.tensor([row[0] for row in scores], dtype=torch.float32),
        scores_R=torch.tensor(
            [row[1 + at] for row, places in zip(scores, drawn, strict=True) for at in places], dtype=torch.float32
        ),
    )


def _digests(texts: Sequence[str]) -> Tensor:
    found = b"".join(blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return torch.from_numpy(np.frombuffer(found, dtype=np.int64).copy())
