"""Read a shard folder as a stranger would, and compare it with its manifest."""

import hashlib
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import webdataset

from optical_scale.errors import ShardError
from optical_scale.records import Record, TextPair
from optical_scale.runtime.files import sha256
from optical_scale.runtime.log import progress
from optical_scale.shards.codec import KEY
from optical_scale.shards.index import MARK, IndexEntry, index_path
from optical_scale.shards.indexing import scan
from optical_scale.shards.layout import Layout, safe_key
from optical_scale.shards.manifest import Manifest, ShardEntry
from optical_scale.shards.reader import ShardFolder


def verify(folder: Path) -> list[str]:
    """List the problems of a shard folder; an empty list means that every sample is as it was written.

    Compares sizes and SHA-256, rebuilds each index from its tar, reads every sample through :class:`ShardFolder` and
    through ``webdataset``, and checks that keys are safe and unique over the folder and that counts hold. Keys are
    remembered as 64-bit digests, about 70 bytes of memory per sample.
    """
    try:
        shards = ShardFolder(folder)
    except ShardError as error:
        return [str(error)]
    manifest = shards.manifest
    problems = _stray_problems(folder, manifest)
    seen = _Seen()
    start = Counter[str | None]()
    for shard in progress(manifest.shards, "verify", unit="shard"):
        found = _file_problems(folder / shard.name, shard, manifest.layout)
        if not found:  # contents of a file with the wrong hash would only repeat the message, sample by sample
            first = start[shard.language]
            ours = (shards.read(shard.language, first + sample) for sample in range(shard.samples))
            found = _sample_problems(folder / shard.name, shard, ours, seen, manifest.layout)
        start[shard.language] += shard.samples
        problems += found
    if not problems:
        problems = _count_problems(folder, manifest, seen.counts)
    return problems


def _stray_problems(folder: Path, manifest: Manifest) -> list[str]:
    """Tars that the manifest does not list; foreign ones may lie there as long as they hold no usable sample."""
    listed = {shard.name for shard in manifest.shards}
    problems = []
    for path in sorted(folder.glob("*.tar")):
        if path.name in listed:
            continue
        if manifest.layout is None:
            problems.append(f"{path}: not in the manifest; delete it")
            continue
        try:
            samples = scan(path, manifest.layout).samples
        except ShardError as error:
            problems.append(str(error))
            continue
        if samples:
            problems.append(
                f"{path}: {samples:,} samples, not in the manifest; move it away, or delete manifest.json and every "
                "*.tar.index and index the folder again"
            )
    return problems


def _file_problems(path: Path, shard: ShardEntry, layout: Layout | None) -> list[str]:
    if not path.is_file():
        return [f"{path}: missing"]
    if (size := path.stat().st_size) != shard.bytes:
        return [f"{path}: {size:,} bytes, the manifest says {shard.bytes:,}"]
    if (digest := sha256(path)) != shard.sha256:
        return [f"{path}: SHA-256 is {digest}, the manifest says {shard.sha256}"]
    index = index_path(path)
    try:
        rebuilt = _rebuild_index(path) if layout is None else scan(path, layout).packed
    except ShardError as error:
        return [str(error)]
    if not index.is_file() or index.read_bytes() != rebuilt:
        return [f"{index}: missing or not the index of {path.name}"]
    return []


def _rebuild_index(path: Path) -> bytes:
    """The index that follows from the tar alone."""
    starts: dict[str, int] = {}
    end = 0
    with tarfile.open(path, "r:") as archive:
        for member in archive:
            starts.setdefault(member.name.partition(".")[0], member.offset)
            end = member.offset_data + member.size + -member.size % tarfile.BLOCKSIZE
    index = bytearray(MARK)
    with path.open("rb") as file:
        for offset, following in zip(starts.values(), [*list(starts.values())[1:], end], strict=True):
            file.seek(offset)
            index += IndexEntry.of(offset, file.read(following - offset)).pack()
    return bytes(index)


class _Seen:
    """Keys and texts met so far in the whole folder."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._keys: set[bytes] = set()

    def add(self, record: Record) -> bool:
        """Count the record; False if its key occurred before."""
        languages = (
            [record.language] if isinstance(record, TextPair) else [caption.language for caption in record.captions]
        )
        self.counts.update(languages)
        digest = hashlib.blake2b(record.key.encode(), digest_size=8).digest()
        new = digest not in self._keys
        self._keys.add(digest)
        return new


def _sample_problems(
    path: Path, shard: ShardEntry, ours: Iterator[Record], seen: _Seen, layout: Layout | None
) -> list[str]:
    problems = []
    read = 0
    try:
        for theirs, record in _side_by_side(path, ours, layout):
            read += 1
            if theirs != record.key:
                problems.append(f"{path}: webdataset reads key {theirs} where the index has {record.key}")
            if not KEY.fullmatch(record.key):
                problems.append(f"{path}: key {record.key!r} has characters outside [0-9a-z_-]")
            if not seen.add(record):
                problems.append(f"{path}: key {record.key} occurs twice in the folder")
            if isinstance(record, TextPair) and record.language != shard.language:
                problems.append(f"{path}: {record.key} is in `{record.language}`, the shard in `{shard.language}`")
    except (ShardError, ValueError, OSError, tarfile.TarError) as error:
        problems.append(f"{path}: after {read:,} of {shard.samples:,} samples: {error}")
    return problems


def _side_by_side(path: Path, ours: Iterator[Record], layout: Layout | None) -> Iterator[tuple[str, Record]]:
    """Keys as webdataset reads them, and records; samples that the index of a foreign tar leaves out are skipped."""
    keys = (str(sample["__key__"]) for sample in _webdataset_samples(path))
    if layout is None:
        yield from zip(keys, ours, strict=True)
        return
    for record in ours:
        key = next((key for key in keys if safe_key(path.name, key) == record.key), "none of this name")
        yield key if key == "none of this name" else record.key, record


def _webdataset_samples(path: Path) -> Iterator[dict[str, Any]]:
    """Samples of one tar as a plain webdataset pipeline yields them."""
    yield from webdataset.WebDataset([str(path.resolve())], shardshuffle=False, empty_check=False)


def _count_problems(folder: Path, manifest: Manifest, counts: Counter[str]) -> list[str]:
    return [
        f"{folder}: {counts[language]:,} texts in `{language}`, the manifest says {manifest.counts.get(language, 0):,}"
        for language in sorted({*counts, *manifest.counts})
        if counts[language] != manifest.counts.get(language, 0)
    ]
