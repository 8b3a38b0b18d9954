"""Read a bounded sample of a shard folder and describe it, in memory that does not grow with the folder."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from random import Random

from optical_scale.errors import ConfigError
from optical_scale.inspection.accounts import accounts, in_languages, parts, terms
from optical_scale.inspection.schema import (
    EDGES,
    Images,
    Inspection,
    Shown,
    ShownText,
    Side,
    Texts,
    UsedTokenizer,
)
from optical_scale.inspection.tally import ImageTally, TextTally
from optical_scale.inspection.tokens import TokenCounter
from optical_scale.records import CaptionedImage, Record, TextPair
from optical_scale.runtime.log import progress
from optical_scale.runtime.seeding import derive_seed
from optical_scale.shards.manifest import Manifest
from optical_scale.shards.reader import ShardFolder

LIMIT = 20_000
"""Default number of samples that are read in a language."""
SAMPLES = 5
"""Default number of samples that are shown of a language."""


def chosen(size: int, number: int, seed: int, *purpose: str) -> list[int]:
    """``number`` of the indices below ``size`` in ascending order, all if there are no more; the same for a seed."""
    if number >= size:
        return list(range(size))
    return sorted(Random(derive_seed(seed, "inspect", *purpose)).sample(range(size), number))


def chosen_to_show(shards: ShardFolder, language: str | None, samples: int, seed: int) -> list[int]:
    """Which samples of a language, or of all images, are shown."""
    return chosen(shards.samples(language), samples, seed, "show", language or "images")


def inspect_folder(
    shards: ShardFolder,
    *,
    counters: Sequence[TokenCounter] = (),
    paths: Sequence[str] = (),
    samples: int = SAMPLES,
    limit: int = LIMIT,
    seed: int = 0,
) -> Inspection:
    """Describe a folder.

    Args:
        shards: the folder.
        counters: tokenizers to count with.
        paths: where they were read, for the record.
        samples: how many to show of each language (of images: in all).
        limit: most samples to read in a language (of images: in all).
        seed: of both choices.

    Raises:
        ConfigError: a number is out of range.
        ShardError: a sample cannot be read.
    """
    if samples < 0 or limit < 1:
        raise ConfigError(f"--samples is {samples}, --limit is {limit}; expected at least 0 and at least 1")
    manifest = shards.manifest
    survey = _Survey(manifest, counters)
    groups = manifest.languages if manifest.kind == "bitext" else (None,)
    shown: list[Shown] = []
    for group in groups:
        view, name = shards.select(group), group or "images"
        for index in progress(chosen(len(view), limit, seed, "read", name), f"inspect {name}", unit="sample"):
            survey.add(view[index])
        survey.end_group()
        shown += [_shown(view[index], counters) for index in chosen_to_show(shards, group, samples, seed)]
    return Inspection(
        folder=str(shards.path),
        kind=manifest.kind,
        format_version=manifest.format_version,
        fingerprint=manifest.fingerprint,
        corpora=manifest.corpora,
        samples=manifest.samples,
        shards=len(manifest.shards),
        bytes=sum(shard.bytes for shard in manifest.shards),
        seed=seed,
        limit=limit,
        edges=EDGES,
        languages=in_languages(manifest, survey.read),
        accounts=accounts(manifest, survey.kept),
        parts=parts(manifest),
        terms=terms(manifest),
        tokenizers=tuple(
            UsedTokenizer(name=counter.name, path=path, pieces=counter.pieces)
            for counter, path in zip(counters, paths, strict=True)
        ),
        texts=tuple(survey.texts),
        images=survey.images,
        shown=tuple(shown),
    )


class _Survey:
    """Everything that is gathered while samples pass by, group after group.

    Attributes:
        kept: samples and captions read, by corpus and language; ``""`` is the language of images.
        read: pairs or captions read, by language.
        texts: statistics of the groups that have ended.
        images: statistics of images.
    """

    def __init__(self, manifest: Manifest, counters: Sequence[TokenCounter]) -> None:
        self.kept: Counter[tuple[str, str]] = Counter()
        self.read: Counter[str] = Counter()
        self.texts: list[Texts] = []
        self.images: Images | None = None
        self._counters = counters
        self._pictures = ImageTally(manifest.languages) if manifest.kind == "images" else None
        self._tallies: defaultdict[tuple[str, Side], TextTally] = defaultdict(lambda: TextTally(counters))

    def add(self, record: Record) -> None:
        """Take one sample into account."""
        for language, side, text in _texts(record):
            self._tallies[language, side].add(text)
            if side != "english":
                self.kept[record.corpus, language] += 1
                self.read[language] += 1
        if isinstance(record, TextPair):
            for text in record.negatives:
                self._tallies[record.language, "negative"].add(text)
        if isinstance(record, CaptionedImage):
            assert self._pictures is not None
            self.kept[record.corpus, ""] += 1
            self._pictures.add(record)

    def end_group(self) -> None:
        """Turn what was gathered of a language, or of all images, into its statistics."""
        for (language, side), tally in sorted(self._tallies.items()):
            english = self._tallies[language, "english"] if side == "target" else None
            self.texts.append(tally.facts(language, side, english))
        self._tallies.clear()
        if self._pictures is not None:
            self.images = self._pictures.facts()


def _texts(record: Record) -> list[tuple[str, Side, str]]:
    """Language under which it counts, side and text."""
    if isinstance(record, TextPair):
        return [(record.language, "english", record.source), (record.language, "target", record.target)]
    return [(caption.language, "caption", caption.text) for caption in record.captions]


def _shown(record: Record, counters: Sequence[TokenCounter]) -> Shown:
    texts = _texts(record)
    found = [counter([text for _, _, text in texts]).all_B.tolist() if texts else [] for counter in counters]
    return Shown(
        key=record.key,
        corpus=record.corpus,
        language=record.language if isinstance(record, TextPair) else "",
        texts=tuple(
            ShownText(
                language="en" if side == "english" else language,
                side=side,
                text=text,
                tokens={counter.name: row[i] for counter, row in zip(counters, found, strict=True)},
            )
            for i, (language, side, text) in enumerate(texts)
        ),
        width=record.width if isinstance(record, CaptionedImage) else 0,
        height=record.height if isinstance(record, CaptionedImage) else 0,
        boxes=sum(map(len, record.regions.values())) if isinstance(record, CaptionedImage) else 0,
    )
