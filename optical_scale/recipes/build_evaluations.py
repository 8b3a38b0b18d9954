"""Evaluation configurations become measurements by given encoders."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import assert_never

from optical_scale.backbones.vision import ImageTransform
from optical_scale.config import evaluations as schema
from optical_scale.corpora.collections.folder import CollectionFolder
from optical_scale.errors import ConfigError
from optical_scale.evaluation.bitext_retrieval import PassageCache, evaluate_bitext
from optical_scale.evaluation.collection_retrieval import MatricesCache, evaluate_collection
from optical_scale.evaluation.encoding import EncodeImages, EncodeText
from optical_scale.evaluation.entity_retrieval import evaluate_entities
from optical_scale.evaluation.grounding import evaluate_grounding
from optical_scale.evaluation.image_text import evaluate_image_text
from optical_scale.evaluation.results import RetrievalResult
from optical_scale.recipes.build_stream import check_seen_whole
from optical_scale.records import CaptionedImage, TextPair
from optical_scale.regions import TokenSpans
from optical_scale.runtime.world import World
from optical_scale.shards.reader import ShardFolder


@dataclass(frozen=True, slots=True)
class Encoders:
    """Who encodes what in an evaluation.

    Attributes:
        queries: reads the foreign sentences and captions; usually the student.
        passages: reads the English sentences; usually the teacher.
        images: reads the images; None when nothing needs it.
        passage_cache: filled with encoded English passages, valid while ``passages`` is frozen; None forgets them.
        matrices_cache: the same for retrieval collections, kept on disk.
        query_spans: the characters of the tokens that ``queries`` gives vectors of.
    """

    queries: EncodeText
    passages: EncodeText
    images: EncodeImages | None = None
    passage_cache: PassageCache | None = field(default_factory=dict)
    matrices_cache: MatricesCache | None = field(default_factory=dict)
    query_spans: TokenSpans | None = None


def measure(
    configs: Sequence[schema.Evaluation], encoders: Encoders, *, batch_size: int, world: World
) -> list[RetrievalResult]:
    """Run every evaluation; collective over the ranks of ``world``.

    Raises:
        ConfigError: a folder holds the wrong kind of samples, or an image evaluation has nobody to encode images.
    """
    results: list[RetrievalResult] = []
    for config in configs:
        match config:
            case schema.BitextRetrieval():
                pairs = bitext(config)
                results += evaluate_bitext(
                    pairs,
                    encoders.queries,
                    encoders.passages,
                    batch_size=batch_size,
                    world=world,
                    passage_cache=encoders.passage_cache,
                )
            case schema.ImageText():
                results += evaluate_image_text(
                    captioned_images(config),
                    encoders.queries,
                    _images(encoders, config.name),
                    batch_size=batch_size,
                    world=world,
                    languages=config.languages,
                )
            case schema.CollectionRetrieval():
                results += evaluate_collection(
                    CollectionFolder(config.path),
                    encoders.queries,
                    encoders.passages,
                    batch_size=batch_size,
                    world=world,
                    languages=config.languages,
                    passage_words=config.passage_words,
                    cache=encoders.matrices_cache,
                )
            case schema.Grounding() | schema.EntityRetrieval():
                results += _of_phrases(config, encoders, batch_size, world)
            case _:
                assert_never(config)
    return results


def _of_phrases(
    config: schema.Grounding | schema.EntityRetrieval, encoders: Encoders, batch_size: int, world: World
) -> list[RetrievalResult]:
    assert encoders.query_spans is not None, "whoever reads captions has a tokenizer"
    evaluate = evaluate_entities
    if isinstance(config, schema.Grounding):
        evaluate = partial(evaluate_grounding, epsilon=config.epsilon, box_share=config.box_share)
    return evaluate(
        captioned_images(config),
        encoders.queries,
        encoders.query_spans,
        _images(encoders, config.name),
        batch_size=batch_size,
        world=world,
        languages=config.languages,
    )


def _images(encoders: Encoders, evaluation: str) -> EncodeImages:
    if encoders.images is None:
        raise ConfigError(f"evaluation: {evaluation} needs a vision encoder; set `vision` or remove it")
    return encoders.images


def check_boxes(configs: Sequence[schema.Evaluation], transform: ImageTransform) -> None:
    """Refuse evaluations of boxes where ``transform`` shows a part of an image.

    Raises:
        ConfigError: there is one.
    """
    for config in configs:
        if isinstance(config, schema.Grounding | schema.EntityRetrieval):
            check_seen_whole(transform, f"evaluation: {config.name}")


def bitext(config: schema.BitextRetrieval) -> dict[str, list[TextPair]]:
    """The evaluation pairs of each language."""
    folder = _folder(config.shards, "bitext")
    return {
        language: [pair for pair in islice(folder.iterate(language), config.limit) if isinstance(pair, TextPair)]
        for language in config.languages or folder.languages
    }


def captioned_images(config: schema.ImageText | schema.Grounding | schema.EntityRetrieval) -> list[CaptionedImage]:
    """The images of an evaluation with their captions."""
    records = islice(_folder(config.shards, "images").iterate(), config.limit)
    return [record for record in records if isinstance(record, CaptionedImage)]


def _folder(path: Path, kind: str) -> ShardFolder:
    folder = ShardFolder(path)
    if folder.manifest.kind != kind:
        raise ConfigError(f"evaluation: {path} holds {folder.manifest.kind}; expected {kind}")
    return folder
