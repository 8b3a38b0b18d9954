"""Corpora -> shards, with an account of everything left out."""

import contextlib
import logging

from optical_scale.config.convert import ConvertConfig
from optical_scale.corpora.filters import DropCounts, filtered, unicode_normalized
from optical_scale.recipes.build_corpora import build_corpus, build_rules
from optical_scale.runtime.log import progress
from optical_scale.shards.manifest import Dropped, Manifest
from optical_scale.shards.writer import ShardWriter, check_free

logger = logging.getLogger(__name__)


def convert(config: ConvertConfig) -> Manifest:
    """Write the shards of all corpora; on any error nothing is left behind.

    Every file is counted and compared with its partner before the first byte is written.

    Raises:
        CorpusError: a corpus is missing, misaligned or malformed.
        ShardError: the output folder holds something, or no record is left after filtering.
    """
    check_free(config.output)
    corpora = [build_corpus(corpus, config.folder) for corpus in config.corpora]
    total = sum(corpus.count() for corpus in corpora)
    counts = DropCounts()
    records = progress((record for corpus in corpora for record in corpus), "convert", total, unit="record")
    with ShardWriter(config.output, config.samples_per_shard) as writer, contextlib.ExitStack() as stack:
        if config.filters.unicode_form is not None:
            records = unicode_normalized(records, config.filters.unicode_form)
        rules = build_rules(config.filters, config.folder, total, config.output.absolute().parent, stack)
        for record in filtered(records, rules, counts):
            writer.add(record)
        _log_counts(counts)
        left_out = (counts.dropped + counts.parts).items()
        manifest = writer.finish(Dropped(*key, number) for key, number in left_out)
    logger.info(
        "%s: %s samples in %s shards, %s MB",
        config.output,
        f"{manifest.samples:,}",
        len(manifest.shards),
        f"{sum(shard.bytes for shard in manifest.shards) / 1e6:,.1f}",
    )
    return manifest


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
