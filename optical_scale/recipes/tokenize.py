"""Token ids of a run's bitext, written once by both tokenizers."""

import multiprocessing
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from optical_scale.config.backbones import TextBackbone
from optical_scale.config.run import TrainConfig
from optical_scale.errors import ConfigError
from optical_scale.recipes.build_inputs import students_side, teachers_side, text_tokenizer
from optical_scale.recipes.build_stream import sources, tokenizers
from optical_scale.runtime.log import progress
from optical_scale.stream.source import Source
from optical_scale.stream.tokens import Tokenizers, facts_of, folder_of, parts_of, read_facts, write_facts, write_part

Part = tuple[int, int]
"""Number of the source, number of its part."""


def tokenize(config: TrainConfig, processes: int = 1) -> int:
    """Write ``stream.tokens`` of a training configuration; sources whose ids are there and current are left alone.

    Returns:
        Pairs tokenised now.

    Raises:
        ConfigError: the configuration names no folder, or its student reads no text.
        ShardError: a pair cannot be read.
    """
    folder = config.stream.tokens
    if folder is None:
        raise ConfigError("stream.tokens is not set: nowhere to write. Give stream.tokens=FOLDER")
    found, known = _open(config)
    _check_names(folder, found)
    stale = [number for number, source in enumerate(found) if _is_stale(folder, source, known)]
    for number in stale:
        (folder_of(folder, found[number]) / "tokens.json").unlink(missing_ok=True)
    parts = [(number, part) for number in stale for part in parts_of(found[number])]
    checksums = dict(zip(parts, _written(config, folder, parts, processes), strict=True))
    for number in stale:
        source = found[number]
        write_facts(folder, source, known, [checksums[number, part] for part in parts_of(source)])
    return sum(len(found[number]) for number in stale)


def _open(config: TrainConfig) -> tuple[list[Source], Tokenizers]:
    pairs = config.towers()["pairs"]
    student = pairs.student.backbone
    if not isinstance(student, TextBackbone):
        raise ConfigError("student.backbone: only bitext is tokenised beforehand; this student reads images")
    target = students_side(text_tokenizer(student), pairs.student)
    return sources(pairs.stream, "bitext"), tokenizers(teachers_side(config), target)


def _check_names(folder: Path, found: list[Source]) -> None:
    taken: dict[Path, str] = {}
    for source in found:
        where = folder_of(folder, source)
        if where in taken:
            raise ConfigError(
                f"stream.tokens: the ids of {taken[where]} and {source.name} would both lie in {where}; convert one of "
                "them under another corpus name"
            )
        taken[where] = source.name


def _is_stale(folder: Path, source: Source, known: Tokenizers) -> bool:
    there = read_facts(folder, source)
    return there is None or any(there.get(name) != value for name, value in facts_of(source, known).items())


_opened: tuple[Path, list[Source], Tokenizers]
"""In a process of the pool: what it writes from."""


def _begin(config: TrainConfig, folder: Path) -> None:
    global _opened
    _opened = (folder, *_open(config))


def _write(part: Part) -> int:
    folder, found, known = _opened
    return write_part(folder, found[part[0]], known, part[1])


def _written(config: TrainConfig, folder: Path, parts: list[Part], processes: int) -> Iterable[int]:
    """The checksum of each part, in order."""
    _begin(config, folder)
    if processes == 1 or len(parts) < 2:
        return [_write(part) for part in progress(parts, "tokenising", total=len(parts), unit="part")]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(processes, len(parts)), context, _begin, (config, folder)) as pool:
        return list(progress(pool.map(_write, parts), "tokenising", total=len(parts), unit="part"))
