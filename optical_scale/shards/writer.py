"""Records -> a folder of webdataset tars that appears whole or not at all, with the same bytes for the same records."""

import contextlib
import hashlib
import os
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from optical_scale.errors import ShardError
from optical_scale.records import Record, TextPair
from optical_scale.runtime.files import folder_appears
from optical_scale.shards.codec import encode
from optical_scale.shards.index import MARK, IndexEntry, index_path
from optical_scale.shards.manifest import Dropped, Kind, Manifest, ShardEntry, write_manifest

SAMPLES_PER_SHARD = 20_000


def check_free(output: Path) -> None:
    """Check that ``output`` can become a shard folder.

    Raises:
        ShardError: it already holds something.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        what = "holds files" if output.is_dir() else "is a file"
        raise ShardError(
            f"{output}: already {what}, and a conversion never adds to or replaces what exists; "
            "choose another output folder, or delete this one"
        )


def write_shards(records: Iterable[Record], output: Path, samples_per_shard: int = SAMPLES_PER_SHARD) -> Manifest:
    """Write all records, which are either pairs or images, to the new folder ``output``.

    Raises:
        ShardError: see :class:`ShardWriter`.
    """
    with ShardWriter(output, samples_per_shard) as writer:
        for record in records:
            writer.add(record)
        return writer.finish()


class ShardWriter:
    """Context manager around one new shard folder; ``finish`` makes it real, an exception makes it vanish.

    Pairs go to ``bitext-{language}-{number:06d}.tar``, one language per shard; images to ``images-{number:06d}.tar``.
    Pairs of several languages may arrive in any order.

    Args:
        output: the folder to create.
        samples_per_shard: samples after which a new tar begins.

    Raises:
        ShardError: ``output`` holds something; ``add`` got an unsafe or repeated key, or pairs and images mixed;
            ``finish`` found no record.
    """

    def __init__(self, output: Path, samples_per_shard: int = SAMPLES_PER_SHARD) -> None:
        if samples_per_shard < 1:
            raise ShardError(f"samples_per_shard is {samples_per_shard}; expected 1 or more")
        self._output, self._samples_per_shard = output, samples_per_shard
        self._stack = contextlib.ExitStack()
        self._open: dict[str | None, _OpenShard] = {}
        self._started: Counter[str | None] = Counter()
        self._entries: list[ShardEntry] = []
        self._counts: Counter[str] = Counter()
        self._corpora: dict[str, None] = {}
        self._kind: Kind | None = None
        self._finished = False

    def __enter__(self) -> Self:
        check_free(self._output)
        with _disk_errors_explained(self._output):
            self._folder = self._stack.enter_context(folder_appears(self._output))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for shard in self._open.values():  # only after an error: finish() has closed them
            shard.abandon()
        if error is not None:
            self._stack.__exit__(kind, error, trace)
            return
        with self._stack:
            assert self._finished, "ShardWriter.finish was not called"

    def add(self, record: Record) -> None:
        """Append one record.

        Raises:
            ShardError: the key is unsafe or was used in the same shard, or pairs and images are mixed.
        """
        if isinstance(record, TextPair):
            kind: Kind = "bitext"
            language: str | None = record.language
            self._counts[record.language] += 1
        else:
            kind, language = "images", None
            self._counts.update(caption.language for caption in record.captions)
        if self._kind not in (None, kind):
            raise ShardError(f"{record.key}: {kind} after {self._kind}; one folder holds one kind, convert them apart")
        self._kind = kind
        self._corpora.setdefault(record.corpus)
        sample = encode(record)
        with _disk_errors_explained(self._output):
            shard = self._open.get(language) or self._start(kind, language)
            shard.add(record.key, sample)
            if shard.samples == self._samples_per_shard:
                self._entries.append(self._open.pop(language).close())

    def _start(self, kind: Kind, language: str | None) -> "_OpenShard":
        stem = kind if language is None else f"{kind}-{language}"
        path = self._folder / f"{stem}-{self._started[language]:06d}.tar"
        self._started[language] += 1
        self._open[language] = _OpenShard(path, language)
        return self._open[language]

    def finish(self, dropped: Iterable[Dropped] = ()) -> Manifest:
        """Close the shards and write the manifest, the last file of all.

        Raises:
            ShardError: there was no record.
        """
        if self._kind is None:
            raise ShardError(f"{self._output}: there is no record to write; check the corpus and the filters")
        with _disk_errors_explained(self._output):
            while self._open:
                self._entries.append(self._open.popitem()[1].close())
        manifest = Manifest(
            kind=self._kind,
            corpora=tuple(self._corpora),
            shards=tuple(sorted(self._entries, key=lambda entry: (entry.language or "", entry.name))),
            counts=dict(sorted(self._counts.items())),
            dropped=tuple(dropped),
        )
        with _disk_errors_explained(self._output):
            write_manifest(self._folder, manifest)
        self._finished = True
        return manifest


@contextlib.contextmanager
def _disk_errors_explained(output: Path) -> Iterator[None]:
    """A full disk or a folder without permission is the user's to repair, not a bug."""
    try:
        yield
    except OSError as error:
        raise ShardError(
            f"{output}: cannot be written ({error.strerror or error}); nothing was kept. Make room or choose another "
            "output folder, then convert again"
        ) from error


class _OpenShard:
    """A tar being written, its hash and its index."""

    def __init__(self, path: Path, language: str | None) -> None:
        self.path, self.language = path, language
        self._file = path.open("wb", buffering=1 << 20)
        self._hash = hashlib.sha256()
        self._bytes = 0
        self._index = bytearray(MARK)
        self._keys: set[str] = set()

    @property
    def samples(self) -> int:
        return len(self._keys)

    def add(self, key: str, sample: bytes) -> None:
        if key in self._keys:
            raise ShardError(f"{self.path.name}: key {key} occurs twice; give every corpus its own name")
        self._keys.add(key)
        self._index += IndexEntry.of(self._bytes, sample).pack()
        self._append(sample)

    def _append(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        self._bytes += len(data)

    def close(self) -> ShardEntry:
        """End the archive (two zero blocks), flush it and its index to disk."""
        self._append(bytes(2 * tarfile.BLOCKSIZE))
        with self._file as file, index_path(self.path).open("wb") as index:
            index.write(self._index)
            for written in (file, index):
                written.flush()
                os.fsync(written.fileno())
        return ShardEntry(self.path.name, self.language, self.samples, self._bytes, self._hash.hexdigest())

    def abandon(self) -> None:
        with contextlib.suppress(OSError):  # closing flushes, and fails again on a full disk
            self._file.close()
