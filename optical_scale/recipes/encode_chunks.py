"""Items of corpora -> encoded samples, a chunk at a time, so that it may happen in any process."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from optical_scale.config.convert import ConvertConfig
from optical_scale.corpora.filters import DropCounts, filtered, unicode_normalized
from optical_scale.corpora.reader import Deferred, Item, LeftOut, read_all
from optical_scale.recipes.build_corpora import build_digests, build_rules
from optical_scale.records import CaptionedImage, Record, TextPair
from optical_scale.shards.samples import Samples, grouped

_CHUNK = 512
"""Pairs that travel together between processes, or as much work of another kind."""

Packed = tuple[str, str, str, str, str, tuple[str, ...], tuple[float, ...]] | LeftOut | Deferred
"""A pair as the tuple of its fields, which travels several times faster than a record; or an item as it is."""


class Encoded(NamedTuple):
    """What became of a chunk.

    Attributes:
        runs: samples of one language and corpus each, with the digests of as many pairs if duplicates are wanted out.
        counts: what was kept and dropped.
    """

    runs: list[tuple[Samples, list[tuple[int, ...]] | None]]
    counts: DropCounts


def chunks(found: Iterable[Item]) -> Iterator[list[Packed]]:
    """Items in groups of about equal work; where they are cut depends on nothing else."""
    chunk: list[Packed] = []
    weight = 0
    for item in found:
        assert not isinstance(item, CaptionedImage), "readers of images defer them"
        if isinstance(item, TextPair):
            fields = item.key, item.language, item.source, item.target, item.corpus, item.negatives, item.scores
            chunk.append(fields)
        else:
            chunk.append(item)
        weight += item.work if isinstance(item, Deferred) else 1
        if weight >= _CHUNK:
            yield chunk
            chunk, weight = [], 0
    if chunk:
        yield chunk


def records_in(chunk: Iterable[Packed]) -> int:
    """How many records a chunk stands for."""
    return sum(item.records if isinstance(item, Deferred) else 1 for item in chunk)


def identity(chunk: Iterable[Packed]) -> bytes:
    """Bytes that differ between chunks that differ; of images only what refers to them."""
    texts: list[str] = []
    for item in chunk:
        if isinstance(item, Deferred):
            texts.append(item.identity)
        elif isinstance(item, tuple):
            key, language, source, target, corpus, negatives, scores = item
            texts += [key, language, source, target, corpus, *negatives, *map(repr, scores)]
        else:
            texts.append(repr(item))
    return "\0".join(texts).encode("utf-8", "surrogatepass")


class ChunkEncoder:
    """Reads what was deferred, applies the rules about single records, encodes.

    Args:
        config: of the conversion.

    Raises:
        CorpusError: as :func:`build_rules`; from calls, an image is unusable.
        ShardError: from calls, as :func:`optical_scale.shards.codec.encode`.
    """

    def __init__(self, config: ConvertConfig) -> None:
        self._form = config.filters.unicode_form
        self._rules = build_rules(config.filters, config.folder)
        self._digests = build_digests(config.filters)

    def __call__(self, chunk: list[Packed]) -> Encoded:
        """Encode one chunk."""
        counts = DropCounts()
        found = _unpacked(chunk)
        if self._form is not None:
            found = unicode_normalized(found, self._form)
        runs = grouped(filtered(found, self._rules, counts))
        return Encoded([(Samples.of(run), self._digests_of(run)) for run in runs], counts)

    def _digests_of(self, run: list[Record]) -> list[tuple[int, ...]] | None:
        if self._digests is None or not isinstance(run[0], TextPair):
            return None
        return [self._digests(record) for record in run if isinstance(record, TextPair)]


def _unpacked(chunk: list[Packed]) -> Iterator[Record | LeftOut]:
    return read_all(TextPair(*item) if isinstance(item, tuple) else item for item in chunk)
