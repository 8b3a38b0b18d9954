"""Shards in, tokenizer out."""

import logging
from collections.abc import Iterator, Sequence

from optical_scale.backbones.tokenizers import train_unigram
from optical_scale.config.run import TokenizerConfig
from optical_scale.records import CaptionedImage, Record, TextPair
from optical_scale.shards.reader import ShardFolder, ShardView
from optical_scale.stream.mixing import Mixture, Portion

logger = logging.getLogger(__name__)


def tokenizer(config: TokenizerConfig) -> int:
    """Train a unigram tokenizer on the text of shards; returns the number of pieces."""
    views = [view for path in config.shards for view in _views(ShardFolder(path))]
    pieces = train_unigram(_sentences(config, views), config.output, vocabulary=config.vocabulary)
    logger.info("%s: %s pieces", config.output, f"{pieces:,}")
    return pieces


def _views(folder: ShardFolder) -> list[ShardView]:
    if folder.manifest.kind == "images":
        return [folder.select()]
    return [folder.select(language) for language in folder.languages]


def _sentences(config: TokenizerConfig, views: list[ShardView]) -> Iterator[str]:
    """Text of every view in the proportions p ∝ n^(1/T), as many samples in total as there are."""
    portions = [Portion(view.name, view.name, len(view)) for view in views]
    mixture = Mixture(portions, config.temperature)
    for view, count in zip(views, mixture.counts(sum(len(view) for view in views)), strict=True):
        for position in range(count):
            yield from _texts(view[position % len(view)], config.sides)


def _texts(record: Record, sides: Sequence[str]) -> Iterator[str]:
    match record:
        case TextPair():
            if "source" in sides:
                yield record.source
            if "target" in sides:
                yield record.target
        case CaptionedImage():
            for caption in record.captions:
                if ("source" if caption.language == "en" else "target") in sides:
                    yield caption.text
