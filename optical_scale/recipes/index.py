"""Foreign webdataset tars -> a shard folder, in place."""

import logging
from pathlib import Path
from typing import Literal

from optical_scale.corpora.reader import check_language, sanitize_key
from optical_scale.errors import ConfigError, CorpusError
from optical_scale.shards.indexing import index_folder
from optical_scale.shards.layout import Layout
from optical_scale.shards.manifest import Manifest

logger = logging.getLogger(__name__)


def index(
    folder: Path,
    *,
    name: str | None = None,
    language: str | None = None,
    language_at: str | None = None,
    caption: str | None = None,
    source: str | None = None,
    target: str | None = None,
    faults: Literal["error", "drop"] = "error",
    processes: int = 1,
) -> Manifest:
    """Write indexes and a manifest beside the tars of ``folder``; the tars stay as they are.

    Args:
        folder: with webdataset tars.
        name: of the corpus; None takes the folder's.
        language: of targets or captions.
        language_at: where samples say their language, instead.
        caption: where the caption is; for images, ``txt`` if nothing is named.
        source: where the English side is, for bitext.
        target: where the other side is, for bitext.
        faults: ``drop`` leaves out and counts samples of which a part is missing or damaged.
        processes: that read tars side by side.

    Raises:
        ConfigError: the arguments contradict each other.
        ShardError: a tar or a sample is refused.
    """
    if source is None and target is None and caption is None:
        caption = "txt"
    try:
        layout = Layout(
            corpus=name or sanitize_key(folder.absolute().name),
            language=None if language is None else check_language(language),
            language_at=language_at,
            caption=caption,
            source=source,
            target=target,
            faults=faults,
        )
    except (CorpusError, ValueError) as error:
        raise ConfigError(
            f"index: {error}; give --language or --language-at, and --caption or both of --source and --target"
        ) from None
    manifest = index_folder(folder, layout, processes)
    for item in manifest.dropped:
        logger.info("%s: left out %s, %s", item.corpus, f"{item.records:,}", item.reason)
    logger.info(
        "%s: %s %s in %s shards are readable in place (%s)",
        folder,
        f"{manifest.samples:,}",
        "pairs" if manifest.kind == "bitext" else "images",
        len(manifest.shards),
        ", ".join(f"{tag} {number:,}" for tag, number in manifest.counts.items()),
    )
    return manifest
