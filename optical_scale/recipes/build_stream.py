"""Stream configurations become the loader of one rank."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from optical_scale.backbones.tokenizers import TextTokenizer
from optical_scale.backbones.vision import ImageTransform
from optical_scale.config import stream as schema
from optical_scale.config.run import TrainConfig
from optical_scale.errors import ConfigError, OpticalScaleError, ShardError
from optical_scale.recipes.build_inputs import Prepare
from optical_scale.recipes.count_tokens import document_frequencies
from optical_scale.records import CaptionedImage, Record, TextPair
from optical_scale.runtime.collectives import agree_on_errors
from optical_scale.runtime.world import World
from optical_scale.shards.reader import ShardFolder
from optical_scale.shards.remote import RemoteShards
from optical_scale.stream.buckets import Bucketing, Budget
from optical_scale.stream.captions import CaptionsOf
from optical_scale.stream.collate import PairCollator
from optical_scale.stream.curriculum import Curriculum
from optical_scale.stream.lengths import LengthTables
from optical_scale.stream.loader import StreamLoader
from optical_scale.stream.mixing import Mixing, Mixture
from optical_scale.stream.phrases import USED, PhraseCollator
from optical_scale.stream.source import Source
from optical_scale.stream.strand import make_strand, portions_of
from optical_scale.stream.tokens import TokenisedSource, Tokenizers

logger = logging.getLogger(__name__)

_LOOKED_AT = 100
"""Pairs of a source that are read before a training with negatives."""
LOOKED_AT = 1000
"""About so many images of a source have their phrases counted before training, if it has as many."""


class Needs(NamedTuple):
    """What an objective reads beside token ids and images.

    Attributes:
        scores: recorded scores of negatives.
        regions: phrases with boxes.
        idf: inverse document frequencies of tokens.
    """

    scores: bool = False
    regions: bool = False
    idf: bool = False

    @classmethod
    def of(cls, config: TrainConfig) -> "Needs":
        """Those of a run's objective."""
        return cls(config.needs_scores, config.learns_from_regions, config.weighs_by_idf)


def sources(config: schema.Stream, kind: str) -> list[Source]:
    """One source per folder and language.

    Args:
        config: names the folders.
        kind: of samples: ``bitext``; ``images`` whose English captions are read, so that a folder is one source; or
            ``captions`` of images in every language.

    Raises:
        ConfigError: a folder holds the other kind of samples than is read, or nothing in a language.
        ShardError: a folder is not there.
    """
    found: list[Source] = []
    for number, entry in enumerate(config.sources):
        folder = _open(entry.shards, config.cache)
        wanted = "bitext" if kind == "bitext" else "images"
        if folder.manifest.kind != wanted:
            raise ConfigError(
                f"stream.sources.{number}.shards: {entry.shards} holds {folder.manifest.kind}; teacher and student "
                f"read {wanted}"
            )
        # Every image carries all its captions, so images are one source; the collator picks the English caption.
        languages = ["en"] if kind == "images" else (entry.languages or list(folder.languages))
        try:
            views: list[Any] = [folder.select(language) for language in languages]
        except ShardError as error:
            raise ConfigError(f"stream.sources.{number}.languages: {error}") from error
        found += [CaptionsOf(view) for view in views] if kind == "captions" else views
    return found


def _open(shards: str, cache: schema.Cache | None) -> ShardFolder:
    if "://" not in shards:
        return ShardFolder(Path(shards))
    assert cache is not None, "the schema demands it"
    most = int(cache.gigabytes * 10**9)
    return ShardFolder.fetched(RemoteShards(shards, cache.folder, most_bytes=most, attempts=cache.attempts))


def mixture(config: schema.Stream, found: Sequence[Source]) -> Mixing:
    """Which source supplies which draw of a section, in one phase or several."""
    portions = portions_of(found)
    first = Mixture(portions, config.temperature, config.weights)
    if not config.curriculum:
        return first
    later = [
        (
            phase.from_step * config.pairs_per_step // config.canonical_nodes,
            Mixture(portions, phase.temperature, phase.weights),
        )
        for phase in config.curriculum
    ]
    return Curriculum([(0, first), *later])


class Measure:
    """Counts the tokens that the encoders will see; an image is as long as its transform says.

    Where several texts may stand for a sample, as every epoch takes others, the longest counts.
    """

    def __init__(self, collate: PairCollator, tokenize: Prepare, prepare: Prepare) -> None:
        self.collate = collate
        self.tokenize = tokenize
        self.prepare = prepare

    @property
    def digest(self) -> str:
        """Changes whenever a count could."""
        negatives = " negatives" if self.collate.negatives else ""
        return f"{self.tokenize.digest()} {self.prepare.digest()}{negatives}"

    @property
    def longest(self) -> tuple[int, int]:
        """Most tokens that a pair can have on each side."""
        return self.tokenize.max_tokens, self.prepare.max_tokens

    def __call__(self, records: Sequence[Record]) -> NDArray[np.int64]:
        """Tokens of both sides, shape (n, 2)."""
        every = [self.collate.texts(record) for record in records]
        read_by = self.prepare if isinstance(self.tokenize, ImageTransform) else self.tokenize
        assert isinstance(read_by, TextTokenizer), "one side are texts"
        counts = iter(read_by.lengths([text for texts in every for text in texts]))
        source = [max(next(counts) for _ in texts) for texts in every]
        if isinstance(self.tokenize, ImageTransform):
            return np.array([(self.tokenize.max_tokens, n) for n in source], dtype=np.int64)
        if isinstance(self.prepare, ImageTransform):
            return np.array([(n, self.prepare.max_tokens) for n in source], dtype=np.int64)
        target = self.prepare.lengths([record.target for record in records if isinstance(record, TextPair)])
        return np.array(list(zip(source, target, strict=True)), dtype=np.int64)


def bucketing(
    config: schema.Stream,
    found: Sequence[Source],
    measure: Measure,
    *,
    lengths: Path,
    world: World,
    device: torch.device | str = "cpu",
) -> Bucketing | None:
    """How pairs are sorted by length; counts the tokens of samples that were never counted, all ranks together.

    Raises:
        ConfigError: the longest possible pair is above the budget.
        OpticalScaleError: a sample cannot be read, on every rank.
    """
    how = config.bucketing
    if how is None:
        return None
    passages = 1 + config.negatives
    budget = Budget(how.tokens, how.transport, passages) if how.has_budget else None
    if budget is not None and budget.use(1, *measure.longest) > 1:
        n, m = measure.longest
        raise ConfigError(
            f"stream.bucketing: one pair of {n} English and {m} target tokens, the longest that max_tokens allows, "
            f"needs tokens {passages * n + m} and transport {n * m}; raise the budget or lower max_tokens"
        )
    tables = LengthTables(how.lengths or lengths, found, measure.digest)
    with agree_on_errors("counting tokens", device):
        counted = tables.count(measure, world, tolerant=config.faults.policy == "skip")
    if counted:
        logger.info("counted the tokens of %s pairs; %s keeps them", f"{counted:,}", tables.folder)
    return Bucketing(tables, how.look_ahead, budget, how.lanes or 1)


def tokenizers(tokenize: Prepare, prepare: Prepare) -> Tokenizers:
    """What makes the token ids of bitext."""
    assert isinstance(tokenize, TextTokenizer), "only bitext has token ids on both sides"
    assert isinstance(prepare, TextTokenizer), "only bitext has token ids on both sides"
    return Tokenizers(tokenize.encode, prepare.encode, tokenize.digest(), prepare.digest())


def collator(
    tokenize: Prepare,
    prepare: Prepare,
    *,
    regions: bool = False,
    negatives: int = 0,
    seed: int = 0,
) -> tuple[str, PairCollator]:
    """The kind of :func:`sources` that two readers want, and what makes batches of them.

    Args:
        tokenize: reads for the teacher.
        prepare: reads for the student.
        regions: also of phrases with boxes.
        negatives: of each pair.
        seed: data seed.

    Raises:
        ConfigError: boxes, of images that are not seen whole.
    """
    if isinstance(tokenize, ImageTransform):
        assert isinstance(prepare, TextTokenizer), "the schema demands a student of texts for a teacher of images"
        captions = PairCollator(None, tokenize_target=prepare, transform_images=tokenize, caption_language=None)
        return "captions", captions
    if isinstance(prepare, ImageTransform):
        if regions:
            check_seen_whole(prepare, "objective: region_alignment")
        phrases = PhraseCollator(tokenize.spans, prepare.side) if regions else None
        return "images", PairCollator(tokenize, transform_images=prepare, phrases=phrases)
    return "bitext", PairCollator(
        tokenize,
        tokenize_target=prepare,
        batch_ids=(tokenize.batch, prepare.batch),
        negatives=negatives,
        seed=seed,
    )


def check_seen_whole(transform: ImageTransform, what: str) -> None:
    """Boxes are places in the whole image.

    Raises:
        ConfigError: the network sees a part.
    """
    if transform.pixels.crop is not None:
        raise ConfigError(
            f"{what} compares boxes with patches, but this network sees the middle of an image only: its "
            f"preprocessor_config.json crops to {transform.pixels.crop} pixels. Set do_center_crop to false there and "
            "size to height and width of that square, or leave boxes out"
        )


def _check_negatives(found: Sequence[Source], wanted: int, scored: bool, device: torch.device | str) -> None:
    """Look at the first pairs of every source; in each some may have no negatives, but not all of them."""
    what = "negatives with scores" if scored else "negatives"
    with agree_on_errors("looking for negatives", device):
        for source in found if wanted else ():
            pairs = (source[number] for number in range(min(len(source), _LOOKED_AT)))
            if not any(isinstance(pair, TextPair) and pair.negatives and (pair.scores or not scored) for pair in pairs):
                raise ConfigError(
                    f"stream.negatives is {wanted}, but the first {_LOOKED_AT} pairs of {source.name} have no {what}; "
                    "convert the corpus with them"
                )


def check_phrases(
    found: Sequence[Source], collate: PairCollator, *, tolerant: bool, world: World, device: torch.device | str
) -> None:
    """Count the phrases of the first captions of some images on rank 0, and log them; all ranks enter.

    Args:
        found: sources of images.
        collate: of the run; without phrases there is nothing to do.
        tolerant: images that cannot be used are counted, as they will be in training.
        world: this rank among all.
        device: of this rank, for the exchange with others.

    Raises:
        ConfigError: none of them has a phrase with a box.
        OpticalScaleError: an image cannot be read, or a phrase or box cannot be meant.
    """
    if collate.phrases is None:
        return
    with agree_on_errors("looking for phrases with boxes", device):
        if not world.is_main:
            return
        counted: Counter[str] = Counter()
        places = [(source, i) for source in found for i in range(0, len(source), max(1, len(source) // LOOKED_AT))]
        for source, index in places:
            try:
                record = source[index]
                assert isinstance(record, CaptionedImage), "only images have captions"
                counted += collate.phrases.count([record], [collate.caption(record, 0)])
            except OpticalScaleError:
                if not tolerant:
                    raise
                counted["in images that cannot be used"] += 1
        words = ", ".join(f"{number:,} {what}" for what, number in counted.items()) or "none"
        if not counted[USED]:
            raise ConfigError(
                f"objective: region_alignment learns from phrases with boxes, and none of {len(places):,} images has "
                f"one in its first English caption (phrases: {words}); add a source that was converted from "
                "Flickr30k-Entities, or take this objective out"
            )
        logger.info("phrases in the first captions of %s images: %s", f"{len(places):,}", words)


def loader(
    config: schema.Stream,
    tokenize: Prepare,
    prepare: Mapping[str, Prepare],
    *,
    world: World,
    seed: int,
    lengths: Path,
    device: torch.device | str = "cpu",
    needs: Needs | None = None,
) -> StreamLoader:
    """The training stream; all ranks enter together.

    Args:
        config: its description.
        tokenize: reads for the teacher.
        prepare: reads for the student, by strand.
        world: this rank among all.
        seed: data seed.
        lengths: folder of token counts, unless the configuration names one.
        device: of this rank, for the exchange with others.
        needs: what the objective reads beside token ids and images; None for nothing.

    Raises:
        ConfigError: negatives, or phrases with boxes, are asked for, and there are none.
    """
    strands, needs = [], needs or Needs()
    for name, part in config.strands().items():
        kind, collate = collator(tokenize, prepare[name], regions=needs.regions, negatives=part.negatives, seed=seed)
        found = sources(part, kind)
        tolerant = part.faults.policy == "skip"
        if not tolerant:
            _check_negatives(found, part.negatives, needs.scores, device)
        check_phrases(found, collate, tolerant=tolerant, world=world, device=device)
        if part.tokens is not None and isinstance(prepare[name], TextTokenizer):
            known = tokenizers(tokenize, prepare[name])
            found = [TokenisedSource(source, part.tokens, known) for source in found]
        if needs.idf:
            assert isinstance(tokenize, TextTokenizer), "the schema demands a teacher of texts"
            collate.idf = document_frequencies(
                found, collate, tokenize, prepare[name], tolerant=tolerant, world=world, device=device
            )
        measure = Measure(collate, tokenize, prepare[name])
        strands.append(
            make_strand(
                found,
                collate,
                mixture(part, found),
                seed=seed,
                pairs_per_step=part.pairs_per_step,
                micro_batch_pairs=part.micro_batch_pairs,
                bucketing=bucketing(part, found, measure, lengths=lengths, world=world, device=device),
                canonical_nodes=part.canonical_nodes,
                policy=part.faults.policy,
                name=name,
            )
        )
    return StreamLoader(
        strands, world=world, shares=config.shares, workers=config.workers, ahead=config.read_ahead_mib << 20
    )
