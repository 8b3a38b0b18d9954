"""Corpora -> shards in several processes, with an account of everything left out, and no work lost by an interruption.

This process reads, remembers duplicates and writes; others decode images, apply the rules and encode. Whatever their
number, the order is that of the corpora, so the bytes are the same.
"""

import contextlib
import hashlib
import itertools
import logging
import unicodedata
from collections import Counter, deque
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from optical_scale import __version__
from optical_scale.config.convert import ConvertConfig
from optical_scale.config.corpora import Bitext
from optical_scale.corpora.duplicates import KeptPairs
from optical_scale.corpora.filters import DropCounts
from optical_scale.corpora.reader import IMAGE_WORK, items
from optical_scale.corpora.seen import SeenDigests
from optical_scale.errors import CorpusError
from optical_scale.recipes.build_corpora import build_corpus, build_digests
from optical_scale.recipes.encode_chunks import ChunkEncoder, Encoded, Packed, chunks, identity, records_in
from optical_scale.recipes.examine import examined
from optical_scale.recipes.fetch_inputs import fetch_inputs
from optical_scale.runtime.files import sha256
from optical_scale.runtime.log import bar
from optical_scale.runtime.pool import cores, map_in_order
from optical_scale.shards.manifest import Dropped, Manifest, Source
from optical_scale.shards.samples import Samples
from optical_scale.shards.unfinished import Unfinished
from optical_scale.shards.writer import ShardFiles, check_free, disk_errors_explained

logger = logging.getLogger(__name__)

_WORTH_A_PROCESS = 20_000
"""Pairs below which starting one takes longer than it saves."""


def convert(config: ConvertConfig, restart: bool = False) -> Manifest:
    """Write the shards of all corpora; the folder appears when it is complete.

    Every file is counted and compared with its partner before the first byte is written. An interrupted conversion of
    more than a few seconds leaves a hidden folder beside the output, from which the next one goes on.

    Args:
        config: corpora, filters, output.
        restart: begin anew whatever an interrupted conversion left.

    Raises:
        CorpusError: a corpus is missing, misaligned or malformed, or has changed since the interruption.
        ShardError: the output folder holds something, no record is left after filtering, or an interrupted conversion
            had other settings.
        WorkerError: a process was killed.
    """
    check_free(config.output)
    fetch_inputs(config)
    corpora = [build_corpus(corpus, config.folder) for corpus in config.corpora]
    total = sum(corpus.count() for corpus in corpora)
    found = chunks(itertools.chain.from_iterable(map(items, corpora)))
    with contextlib.ExitStack() as stack:
        with disk_errors_explained(config.output):
            unfinished = stack.enter_context(Unfinished(config.output, _settings(config), restart))
            conversion = stack.enter_context(_Conversion(config, total, unfinished))
        aside = _processes(config, total) > 1
        with examined(config, corpora, aside), bar("convert", total, "record") as advance:
            advance(conversion.skip(found), "")
            for number in conversion.run(found):
                advance(number, "")
        with disk_errors_explained(config.output):
            manifest = conversion.finish()
            unfinished.appear()
    logger.info(
        "%s: %s samples in %s shards, %s MB",
        config.output,
        f"{manifest.samples:,}",
        len(manifest.shards),
        f"{sum(shard.bytes for shard in manifest.shards) / 1e6:,.1f}",
    )
    return manifest


def _settings(config: ConvertConfig) -> dict[str, Any]:
    """All that decides about the bytes, but for the corpora, which are compared as they are read again."""
    filters = config.filters
    model = filters.language_id.model if filters.language_id is not None else "builtin"
    paths = (*filters.held_out, filters.tokenizer, None if model == "builtin" else model)
    named = [config.folder / path for path in paths if path is not None]
    return {
        "config": config.model_dump(mode="json", exclude={"output", "processes", "misaligned", "remote"}),
        "files": {str(path): sha256(path) for path in named if path.is_file()},
        "optical_scale": __version__,
        "unicode": unicodedata.unidata_version,
    }


def _processes(config: ConvertConfig, records: int) -> int:
    """Worker processes for so many records."""
    weight = 1 if isinstance(config.corpora[0], Bitext) else IMAGE_WORK
    return config.processes or min(cores(), 1 + records * weight // _WORTH_A_PROCESS)


class _Conversion(contextlib.ExitStack):
    """Samples on their way into the shards, and all that an interruption must not lose."""

    def __init__(self, config: ConvertConfig, total: int, unfinished: Unfinished) -> None:
        super().__init__()
        self._config, self._total, self._unfinished = config, total, unfinished
        state = unfinished.state or {}
        self._items: int = state.get("items", 0)
        self._processes = _processes(config, total - self._items)
        self._identity: str = state.get("identity", "")
        self._counts = DropCounts(**state.get("records", {}))
        self._read = hashlib.blake2b(digest_size=16)
        self._files = self.enter_context(ShardFiles(unfinished.shards, config.samples_per_shard, state.get("shards")))
        self._seen: SeenDigests | None = None
        digests = build_digests(config.filters)
        if digests is not None and isinstance(config.corpora[0], Bitext):
            self._seen = self.enter_context(SeenDigests(total * digests.per_pair, config.output.absolute().parent))
            self._kept = KeptPairs(self._seen, digests.exact)

    def skip(self, found: Iterator[list[Packed]]) -> int:
        """Pass over what is done already; its number.

        Raises:
            CorpusError: it is not what was read then.
        """
        passed = 0
        while passed < self._items and (chunk := next(found, None)) is not None:
            self._read.update(identity(chunk))
            passed += records_in(chunk)
        if passed != self._items or (passed and self._read.hexdigest() != self._identity):
            raise CorpusError(
                f"{self._config.output}: the corpora are not those that the interrupted conversion read: the first "
                f"{self._items:,} records differ. Bring the files back, or start over with `--restart`"
            )
        if self._seen is not None:
            for digest in self._unfinished.digests():
                self._seen.add(digest)
        if passed:
            logger.info("%s: goes on after %s of %s records", self._config.output, f"{passed:,}", f"{self._total:,}")
        return passed

    def run(self, found: Iterator[list[Packed]]) -> Iterator[int]:
        """Convert all that is found; the number of items of each chunk as it is done."""
        ahead: deque[tuple[int, str]] = deque()

        def noted() -> Iterator[list[Packed]]:
            for chunk in found:
                self._read.update(identity(chunk))
                ahead.append((records_in(chunk), self._read.hexdigest()))
                yield chunk

        for encoded in map_in_order(partial(ChunkEncoder, self._config), noted(), self._processes):
            number, self._identity = ahead.popleft()
            self._items += number
            with disk_errors_explained(self._config.output):
                self._take(encoded)
                self._unfinished.save_if_due(self._state)
            yield number

    def _take(self, encoded: Encoded) -> None:
        self._counts.add(encoded.counts)
        for samples, digests in encoded.runs:
            self._files.add(samples if digests is None else self._new(samples, digests))

    def _new(self, samples: Samples, digests: list[tuple[int, ...]]) -> Samples:
        """The pairs that were not there before."""
        assert samples.language is not None
        reasons, remembered = self._kept.judge(digests)
        self._unfinished.remember(remembered)
        for reason, number in Counter(filter(None, reasons)).items():
            self._counts.drop_kept(samples.corpus, samples.language, reason, number)
        return samples.pairs(np.array([reason is None for reason in reasons])) if any(reasons) else samples

    def _state(self) -> dict[str, Any]:
        return {
            "items": self._items,
            "identity": self._identity,
            "records": self._counts.state(),
            "shards": self._files.state(),
        }

    def finish(self) -> Manifest:
        """Close the shards; report what was left out.

        Raises:
            ShardError: nothing is left.
        """
        _log_counts(self._counts)
        left_out = (self._counts.dropped + self._counts.parts).items()
        return self._files.finish((Dropped(*key, number) for key, number in left_out), self._sources())

    def _sources(self) -> list[Source]:
        """One for each name, in order; corpora that share a name share their terms."""
        names = dict.fromkeys(corpus.name for corpus in self._config.corpora)
        return [
            Source(
                name,
                {
                    language: number
                    for (corpus, language), number in sorted(self._counts.kept.items())
                    if corpus == name
                },
                "; ".join(dict.fromkeys(c.license for c in self._config.corpora if c.name == name and c.license)),
                "; ".join(dict.fromkeys(c.origin for c in self._config.corpora if c.name == name and c.origin)),
            )
            for name in names
        ]


def _log_counts(counts: DropCounts) -> None:
    """One line per corpus and language: kept, dropped, reasons."""
    dropped = {key[:2] for key in counts.dropped}
    for corpus, language in sorted({*counts.kept, *dropped}):
        reasons = counts.reasons(corpus, language)
        logger.info(
            "%s%s: kept %s, dropped %s%s",
            corpus,
            f" ({language})" if language else "",
            f"{counts.kept[corpus, language]:,}",
            f"{sum(reasons.values()):,}",
            "".join(f", {reason} {number:,}" for reason, number in reasons.items()),
        )
    for (corpus, language, reason), number in sorted(counts.parts.items()):
        logger.info("%s%s: %s %s", corpus, f" ({language})" if language else "", f"{number:,}", reason)
