"""Shards in, tokenizer out."""

import logging
from collections.abc import Iterator

from optical_scale.backbones.tokenizers import train_unigram
from optical_scale.config.run import TokenizerConfig
from optical_scale.records import CaptionedImage, Record, TextPair
from optical_scale.shards.reader import ShardFolder, ShardView
from optical_scale.stream.mixing import sampling_shares

logger = logging.getLogger(__name__)


def tokenizer(config: TokenizerConfig) -> int:
    """Train a unigram tokenizer on the text of shards; returns the number of pieces."""
    views = [view for path in config.shards for view in ShardFolder(path).views()]
    pieces = train_unigram(_sentences(config, views), config.output, vocabulary=config.vocabulary)
    logger.info("tokenizer with %d pieces in %s", pieces, config.output)
    return pieces


def _sentences(config: TokenizerConfig, views: list[ShardView]) -> Iterator[str]:
    """Text of every view, small languages repeated until their share of the text follows p ∝ n^(1/T)."""
    sizes = {str(number): len(view) for number, view in enumerate(views)}
    shares = sampling_shares(sizes, config.temperature)
    largest = max(range(len(views)), key=lambda number: sizes[str(number)])
    unit = sizes[str(largest)] / shares[str(largest)]
    for number, view in enumerate(views):
        wanted = round(unit * shares[str(number)])
        for position in range(wanted):
            yield from _texts(view[position % len(view)], config.sides)


def _texts(record: Record, sides: list[str]) -> Iterator[str]:
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
