"""A shard folder, described."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from optical_scale.errors import ConfigError
from optical_scale.inspection.examine import LIMIT, SAMPLES, chosen_to_show, inspect_folder
from optical_scale.inspection.page import inspection_page
from optical_scale.inspection.schema import Inspection
from optical_scale.inspection.text import terminal_text
from optical_scale.inspection.thumbnails import thumbnail
from optical_scale.inspection.tokens import load_counters
from optical_scale.records import CaptionedImage
from optical_scale.runtime.files import write_atomic
from optical_scale.shards.reader import ShardFolder

Format = Literal["text", "json", "html"]


def inspect(
    folder: Path,
    *,
    tokenizers: Sequence[Path] = (),
    form: Format = "text",
    samples: int = SAMPLES,
    limit: int = LIMIT,
    seed: int = 0,
) -> str:
    """Describe what is in ``folder``.

    Args:
        folder: a shard folder.
        tokenizers: folders of models or ``tokenizer.json`` files to count tokens with.
        form: of the result.
        samples: how many to show of each language (of images: in all).
        limit: most samples to read in a language (of images: in all).
        seed: of both choices.

    Raises:
        ConfigError: a tokenizer cannot be read, or a number is out of range.
        ShardError: the folder or a sample cannot be read.
    """
    shards = ShardFolder(folder)
    counters = load_counters(tokenizers)
    paths = [str(path) for path in tokenizers]
    report = inspect_folder(shards, counters=counters, paths=paths, samples=samples, limit=limit, seed=seed)
    if form == "json":
        return json.dumps(report.model_dump(mode="json"), ensure_ascii=False, indent=2) + "\n"
    return inspection_page(report, _thumbnails(shards, report)) if form == "html" else terminal_text(report)


def _thumbnails(shards: ShardFolder, report: Inspection) -> dict[str, str]:
    records = (shards.read(None, index) for index in chosen_to_show(shards, None, len(report.shown), report.seed))
    found = {record.key: thumbnail(record.image) for record in records if isinstance(record, CaptionedImage)}
    return {key: uri for key, uri in found.items() if uri is not None}


def write_inspection(path: Path, text: str) -> None:
    """Write a result; an existing file is replaced.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        write_atomic(path, text)
    except OSError as error:
        raise ConfigError(f"--output: {path} cannot be written ({error.strerror}); choose another place") from None
