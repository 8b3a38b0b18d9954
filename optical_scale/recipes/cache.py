"""Encode everything a run's teacher will read, once."""

import itertools
import logging
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from optical_scale.backbones.identity import weights_digest
from optical_scale.backbones.tokenizers import ADDED, TextTokenizer
from optical_scale.batch import TokenBatch, TokenStates
from optical_scale.config.backbones import TextBackbone, VisionBackbone
from optical_scale.config.evaluations import BitextRetrieval, EntityRetrieval, Grounding, ImageText
from optical_scale.config.run import Teacher, TeacherCache, TrainConfig
from optical_scale.engine.start import finish, start
from optical_scale.engine.teacher import TeacherEngine
from optical_scale.engine.teacher_cache import CachedTeacher, CacheWriter, finish_cache, stored_and_read
from optical_scale.errors import ConfigError, EngineError
from optical_scale.recipes.build_evaluations import bitext, captioned_images
from optical_scale.recipes.build_inputs import teachers_side, text_tokenizer
from optical_scale.recipes.build_models import live_teacher
from optical_scale.recipes.build_stream import sources
from optical_scale.runtime.collectives import agree_on_errors, any_rank, broadcast_object, sum_over_ranks
from optical_scale.runtime.files import folder_appears
from optical_scale.runtime.world import World
from optical_scale.stream.collate import PairCollator
from optical_scale.stream.source import Source
from optical_scale.transport import sinkhorn_cost

logger = logging.getLogger(__name__)
Row = NDArray[np.uint32]

BATCH = 64
_SORTED_TOGETHER = 64 * BATCH
_LOOKED_UP = 16


def cache(config: TrainConfig) -> Path:
    """Write ``teacher.cache`` of a training configuration; every rank encodes its share.

    Returns:
        The cache's folder.

    Raises:
        ConfigError: the configuration names no cache, or its folder exists.
    """
    where, teacher = cache_of(config)
    world = World.from_env()
    device = start(world, seed=config.seed)
    assert isinstance(teacher.backbone, TextBackbone), "the schema demands it"
    english, passages = teachers_side(config), text_tokenizer(teacher.backbone).for_passages()
    assert isinstance(english, TextTokenizer), "of the same backbone"
    engine = live_teacher(config, passages, device)
    logger.info("keeping the output%s", f" and the inner layers {config.cached_layers}" if config.cached_layers else "")
    with ExitStack() as stack:
        folder = _folder_of_ranks(where.folder, world, stack)
        writer = CacheWriter(folder, world.rank, where.precision)
        batches = itertools.chain(
            _batches(_texts(config, world), english, writer), _batches(_evaluated(config, world), passages, writer)
        )
        width = _encode(batches, engine, english, writer)
        errors = _errors(config, engine, english, where)
        with agree_on_errors("closing the cache", device):
            writer.close()
        with agree_on_errors("finishing the cache", device):
            if world.is_main:
                finish_cache(folder, fingerprint(config), where.precision, width, errors, config.cached_layers)
    logger.info("%s: relative error of %s", where.precision, _readable(errors))
    finish()
    return where.folder


def cache_of(config: TrainConfig) -> tuple[TeacherCache, Teacher]:
    """The cache that a configuration names, and whose it is.

    Raises:
        ConfigError: there is none.
    """
    if config.teacher is None or config.teacher.cache is None:
        raise ConfigError(
            "teacher.cache is not set: nothing to write. Add `cache: {folder: caches/NAME}` under `teacher`, or give "
            "teacher.cache.folder=caches/NAME"
        )
    return config.teacher.cache, config.teacher


def fingerprint(config: TrainConfig) -> dict[str, str]:
    """What a teacher's states depend on, and which texts they are of."""
    teacher = config.teacher
    assert teacher is not None, "the caller has one"
    folder = teacher.backbone.pretrained
    assert folder is not None, "the schema demands weights for a cache"
    described = teacher.backbone.model_dump(mode="json", include={"layers", "head", "vocabulary"})
    return {
        "weights": weights_digest(folder),
        "tokenizer": teachers_side(config).digest(),
        "backbone": str(described),
        "arithmetic": teacher.engine.precision,
    }


def check_cached(config: TrainConfig, teacher: CachedTeacher, device: torch.device) -> None:
    """Look up the first texts of every source, before training meets one that the cache does not have; all ranks enter.

    Raises:
        EngineError: the cache was written for other data.
    """
    english, tokenize = _only_texts(config), teachers_side(config)
    assert isinstance(tokenize, TextTokenizer), "the schema demands a text teacher for a cache"
    with agree_on_errors("looking up the teacher's cache", device):
        for source in filter(len, _sources(config)):
            texts = [text for number in range(min(len(source), _LOOKED_UP)) for text in english.texts(source[number])]
            try:
                teacher.encode(tokenize(texts))
            except EngineError as error:
                raise EngineError(f"{error}; the text is one of the first of source {source.name}") from error


def _folder_of_ranks(target: Path, world: World, stack: ExitStack) -> Path:
    """One temporary folder for all ranks, which becomes ``target`` when rank 0's stack unwinds without error."""
    folder: Path | None = None
    problem: str | None = None
    if world.is_main:
        try:
            folder = stack.enter_context(folder_appears(target))
        except OSError as error:
            problem = f"teacher.cache.folder: {error}; delete it to encode anew, or choose another folder"
    folder, problem = broadcast_object((folder, problem))
    if problem is not None or folder is None:
        raise ConfigError(problem or "no folder")
    return folder


def _texts(config: TrainConfig, world: World) -> Iterator[str]:
    """This rank's share of all English texts of training; the first is what stands for skipped rows."""
    yield ""
    english = _only_texts(config)
    for source in _sources(config):
        for number in range(world.rank, len(source), world.size):
            yield from english.texts(source[number])


def _sources(config: TrainConfig) -> Iterator[Source]:
    """Of all towers."""
    for tower in config.towers().values():
        vision = isinstance(tower.student.backbone, VisionBackbone)
        yield from sources(tower.stream, "images" if vision else "bitext")


def _only_texts(config: TrainConfig) -> PairCollator:
    return PairCollator(_no_tokens, tokenize_target=_no_tokens, negatives=config.stream.negatives)


def _evaluated(config: TrainConfig, world: World) -> Iterator[str]:
    """The same of evaluation, which reads passages."""
    for evaluation in config.evaluation:
        match evaluation:
            case BitextRetrieval():
                for pairs in bitext(evaluation).values():
                    yield from (pair.source for pair in pairs[world.rank :: world.size])
            case ImageText() | Grounding() | EntityRetrieval():
                for image in captioned_images(evaluation)[world.rank :: world.size]:
                    yield from (caption.text for caption in image.captions)


def _no_tokens(texts: object) -> TokenBatch:
    raise AssertionError("only captions are asked for")


def _batches(texts: Iterator[str], tokenize: TextTokenizer, writer: CacheWriter) -> Iterator[list[Row]]:
    """New texts as their tokens, in batches of similar length."""
    while chunk := list(itertools.islice(texts, _SORTED_TOGETHER)):
        new = sorted((row for row in tokenize.encode(chunk) if not writer.knows(_ids(row))), key=len)
        yield from (new[start : start + BATCH] for start in range(0, len(new), BATCH))


def _ids(row: Row) -> NDArray[np.int32]:
    return (row & (ADDED - 1)).astype(np.int32)


def _encode(batches: Iterator[list[Row]], engine: TeacherEngine, tokenize: TextTokenizer, writer: CacheWriter) -> int:
    """Store the states of all batches and return their width; ranks with fewer batches encode along, for nothing."""
    width, texts = 0, 0
    batch: list[Row] | None = None
    states: TokenStates | None = None
    while True:
        # Nothing collective happens in here, so that a rank that fails takes the others along.
        with agree_on_errors("encoding for the cache", engine.device):
            if batch is not None and states is not None:
                for place, row in enumerate(batch):
                    every = [x_BTD[place, : len(row)] for x_BTD in (states.x_BTD, *states.layers.values())]
                    writer.add(_ids(row), torch.stack(every))
            batch = next(batches, None)
        if not any_rank(batch is not None, engine.device):
            break
        states = engine.encode(tokenize.batch(batch or tokenize.encode([""])))
        width = states.x_BTD.shape[2]
        texts += len(batch or [])
        if texts // 10_000 != (texts - len(batch or [])) // 10_000:
            logger.info("rank 0 encoded %s texts", f"{texts:,}")
    total = sum_over_ranks(torch.tensor(float(texts), device=engine.device))
    logger.info("%s texts encoded over all ranks", f"{int(total):,}")
    return width


def _errors(
    config: TrainConfig, engine: TeacherEngine, tokenize: TextTokenizer, where: TeacherCache
) -> dict[str, float]:
    """What storing costs, on the first texts: of the vectors, and of the transport cost between neighbouring texts."""
    texts = [text for text in itertools.islice(_texts(config, World()), 1 + BATCH) if text]
    live = engine.encode(tokenize(texts))
    errors = {}
    for number in (None, *live.layers):
        exact, of = live.at_layer(number), "" if number is None else f" of layer {number}"
        kept = [stored_and_read(x_TD, where.precision) for x_TD in exact.x_BTD]
        read = replace(exact, x_BTD=torch.stack(kept).to(engine.device))
        x_ND, difference_ND = (x_BTD[live.attention_BT] for x_BTD in (exact.x_BTD.float(), read.x_BTD - exact.x_BTD))
        cost, approximate = _transport(exact, exact), _transport(read, exact)
        errors[f"vectors{of}"] = float(difference_ND.norm() / x_ND.norm())
        errors[f"transport cost{of}"] = float(((approximate - cost) / cost).abs().max())
    return errors


def _transport(teacher: TokenStates, neighbours: TokenStates) -> torch.Tensor:
    other_BTD, other_BT = neighbours.x_BTD.roll(1, 0).float(), neighbours.mask_BT.roll(1, 0)
    return sinkhorn_cost(teacher.x_BTD.float(), other_BTD, teacher.mask_BT, other_BT, epsilon=0.05).cost_B


def _readable(errors: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.1e}" for name, value in errors.items())
