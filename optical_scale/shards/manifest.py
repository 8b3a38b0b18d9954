"""``manifest.json``: what a shard folder holds. Written last, so a folder without one is not a corpus."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from optical_scale.errors import ShardError
from optical_scale.runtime.files import write_json
from optical_scale.shards.layout import Layout

FORMAT_VERSION = 1
FILE_NAME = "manifest.json"

Kind = Literal["bitext", "images"]


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """One tar file.

    Attributes:
        name: file name inside the folder.
        language: BCP-47 tag of all its pairs; None for images.
        samples: number of samples, at least 1.
        bytes: size of the file.
        sha256: hexadecimal hash of the file.
    """

    name: str
    language: str | None
    samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Dropped:
    """How many records of a corpus were left out for one reason; ``language`` is ``""`` for images."""

    corpus: str
    language: str
    reason: str
    records: int


@dataclass(frozen=True, slots=True)
class Source:
    """What came from one corpus, and on which terms.

    Attributes:
        corpus: its name.
        kept: pairs, or captions, by language; images under ``""``.
        license: as the configuration states it, best an SPDX identifier; empty if it does not.
        origin: where the corpus was taken from, best a URL; empty if not stated.
    """

    corpus: str
    kept: Mapping[str, int]
    license: str = ""
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """Contents of a shard folder.

    Attributes:
        kind: ``bitext`` (one language per shard) or ``images``.
        corpora: names of the corpora, in conversion order.
        shards: sorted by language and number; sample indices count in this order.
        counts: by language, pairs of a bitext, captions of images.
        dropped: what was left out and why.
        format_version: version of the layout.
        sources: one for each of ``corpora``; none in folders of older versions or of other programs.
        layout: how samples of tars that another program wrote are read; None if ``convert`` wrote them.
    """

    kind: Kind
    corpora: tuple[str, ...]
    shards: tuple[ShardEntry, ...]
    counts: Mapping[str, int]
    dropped: tuple[Dropped, ...] = ()
    format_version: int = FORMAT_VERSION
    layout: Layout | None = None
    sources: tuple[Source, ...] = ()

    @property
    def samples(self) -> int:
        """Pairs or images in all shards."""
        return sum(shard.samples for shard in self.shards)

    @property
    def languages(self) -> tuple[str, ...]:
        """Tags with at least one pair or caption, sorted."""
        return tuple(sorted(self.counts))

    @property
    def fingerprint(self) -> str:
        """Hash of format version, kind, layout and every shard's name and hash: equal means the same samples."""
        lines = [f"{self.format_version} {self.kind}", *(f"{shard.name} {shard.sha256}" for shard in self.shards)]
        if self.layout is not None:
            lines.append(json.dumps(asdict(self.layout), sort_keys=True))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json`` into ``folder``, atomically."""
    values = asdict(manifest) | {"fingerprint": manifest.fingerprint}
    if manifest.layout is None:
        del values["layout"]
    write_json(folder / FILE_NAME, values)


def read_manifest(folder: Path) -> Manifest:
    """Read and check ``folder/manifest.json``.

    Raises:
        ShardError: it is missing, unreadable, of another format version, or contradicts itself.
    """
    path = folder / FILE_NAME
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ShardError(
            f"{folder}: no {FILE_NAME}, so this is not a finished shard folder; make one with `optical-scale convert`, "
            "or with `optical-scale index` from webdataset tars"
        ) from None
    except (OSError, ValueError) as error:
        raise ShardError(f"{path}: unreadable ({error}); convert the corpus again") from None
    version = values.get("format_version") if isinstance(values, dict) else None
    if version != FORMAT_VERSION:
        raise ShardError(
            f"{path}: format version {version!r}; this program reads version {FORMAT_VERSION}; convert the corpus again"
        )
    fingerprint = values.pop("fingerprint", None)
    try:
        manifest = _from_json(values)
    except (KeyError, TypeError, ValueError) as error:
        raise ShardError(f"{path}: damaged ({error!r}); convert the corpus again") from None
    if manifest.fingerprint != fingerprint:
        raise ShardError(
            f"{path}: the fingerprint is {fingerprint}, the listed shards give {manifest.fingerprint}; the file was "
            "edited or damaged; convert the corpus again"
        )
    return manifest


def _from_json(values: dict[str, Any]) -> Manifest:
    manifest = Manifest(
        **values
        | {
            "corpora": tuple(values["corpora"]),
            "shards": tuple(ShardEntry(**shard) for shard in values["shards"]),
            "dropped": tuple(Dropped(**item) for item in values["dropped"]),
            "layout": Layout(**values["layout"]) if "layout" in values else None,
            "sources": tuple(Source(**source) for source in values.get("sources", ())),
        }
    )
    if manifest.kind not in ("bitext", "images"):
        raise ValueError(f"kind is {manifest.kind!r}")
    if manifest.layout is not None and manifest.layout.kind != manifest.kind:
        raise ValueError(f"kind is {manifest.kind!r}, that of the layout {manifest.layout.kind!r}")
    for shard in manifest.shards:
        if shard.name != Path(shard.name).name or shard.samples < 1:
            raise ValueError(f"shard {shard.name!r} with {shard.samples} samples")
    if manifest.kind == "bitext":
        by_language = dict.fromkeys(manifest.counts, 0)
        for shard in manifest.shards:
            by_language[str(shard.language)] += shard.samples
        if by_language != manifest.counts:
            raise ValueError(f"shards hold {by_language}, counts say {manifest.counts}")
    return manifest
