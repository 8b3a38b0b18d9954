"""Records -> a folder of webdataset tars, with the same bytes for the same records, however often interrupted."""

import contextlib
import hashlib
import itertools
import os
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optical_scale.errors import ShardError
from optical_scale.records import Record
from optical_scale.runtime.files import folder_appears
from optical_scale.shards.index import MARK, index_entries, index_path
from optical_scale.shards.manifest import Dropped, Kind, Manifest, ShardEntry, Source, write_manifest
from optical_scale.shards.samples import Samples, grouped

SAMPLES_PER_SHARD = 20_000

_TOGETHER = 256
"""Records that are encoded at once."""

Bytes = bytes | memoryview


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
    """Write all records, which are either pairs or images, to the new folder ``output``; on any error it is not there.

    Raises:
        ShardError: ``output`` holds something; or see :class:`ShardFiles`.
    """
    check_free(output)
    with contextlib.ExitStack() as stack:
        with disk_errors_explained(output):
            folder = stack.enter_context(folder_appears(output))
        files = stack.enter_context(ShardFiles(folder, samples_per_shard))
        left = iter(records)
        while some := list(itertools.islice(left, _TOGETHER)):
            for run in grouped(some):
                samples = Samples.of(run)
                with disk_errors_explained(output):
                    files.add(samples)
        with disk_errors_explained(output):
            return files.finish()


class ShardFiles:
    """Tars that grow in a folder, one for each language, or one of images; a context manager that closes them.

    Pairs go to ``bitext-{language}-{number:06d}.tar``, one language per shard; images to ``images-{number:06d}.tar``.
    Pairs of several languages may arrive in any order.

    Args:
        folder: where they lie.
        samples_per_shard: samples after which a new tar begins.
        state: of :meth:`state`, to go on from there with the files in ``folder``; what was added later is removed.

    Raises:
        ShardError: ``add`` got a repeated key, or pairs and images mixed; ``finish`` found no record; the files in
            ``folder`` do not fit ``state``.
        OSError: the disk is full, or does not work.
    """

    def __init__(
        self, folder: Path, samples_per_shard: int = SAMPLES_PER_SHARD, state: Mapping[str, Any] | None = None
    ) -> None:
        if samples_per_shard < 1:
            raise ShardError(f"samples_per_shard is {samples_per_shard}; expected 1 or more")
        self._folder, self._samples_per_shard = folder, samples_per_shard
        self._open: dict[str | None, _OpenShard] = {}
        self._started: Counter[str | None] = Counter()
        self._entries: list[ShardEntry] = []
        self._counts: Counter[str] = Counter()
        self._corpora: dict[str, None] = {}
        if state is not None:
            self._restore(state)

    def __enter__(self) -> "ShardFiles":
        return self

    def __exit__(self, *_: object) -> None:
        for shard in self._open.values():  # only after an error: finish() has closed them
            shard.abandon()

    def add(self, samples: Samples) -> None:
        """Append samples.

        Raises:
            ShardError: a key was used in the same shard, or pairs and images are mixed.
        """
        self._counts.update(samples.counts)
        self._corpora.setdefault(samples.corpus)
        language, done = samples.language, 0
        while done < len(samples):
            shard = self._open.get(language) or self._start(language, samples.keys[done])
            part = slice(done, done + self._samples_per_shard - shard.samples)
            shard.add(samples.keys[part], samples.sizes_N[part], samples.checksums_N[part], samples.bytes_of(part))
            done = part.stop
            if shard.samples == self._samples_per_shard:
                self._entries.append(self._open.pop(language).close())

    def _start(self, language: str | None, key: str) -> "_OpenShard":
        if self._started and (language is None) != (None in self._started):
            kinds = ("images", "bitext") if language is None else ("bitext", "images")
            raise ShardError(f"{key}: {kinds[0]} after {kinds[1]}; one folder holds one kind, convert them apart")
        stem = "images" if language is None else f"bitext-{language}"
        path = self._folder / f"{stem}-{self._started[language]:06d}.tar"
        self._started[language] += 1
        self._open[language] = _OpenShard(path, language)
        return self._open[language]

    def finish(self, dropped: Iterable[Dropped] = (), sources: Iterable[Source] = ()) -> Manifest:
        """Close the shards and write the manifest, the last file of all.

        Raises:
            ShardError: there was no record.
        """
        if not self._started:
            raise ShardError("there is no record to write; check the corpus and the filters")
        kind: Kind = "images" if None in self._started else "bitext"
        while self._open:
            self._entries.append(self._open.popitem()[1].close())
        manifest = Manifest(
            kind=kind,
            corpora=tuple(self._corpora),
            shards=tuple(sorted(self._entries, key=lambda entry: (entry.language or "", entry.name))),
            counts=dict(sorted(self._counts.items())),
            dropped=tuple(dropped),
            sources=tuple(sources),
        )
        write_manifest(self._folder, manifest)
        return manifest

    def state(self) -> dict[str, Any]:
        """Bring all files to disk and say, as plain JSON, what they hold."""
        for shard in self._open.values():
            shard.sync()
        return {
            "finished": [asdict(entry) for entry in self._entries],
            "open": [[language, shard.path.name, shard.bytes] for language, shard in self._open.items()],
            "started": list(self._started.items()),
            "counts": dict(self._counts),
            "corpora": list(self._corpora),
        }

    def _restore(self, state: Mapping[str, Any]) -> None:
        self._entries = [ShardEntry(**entry) for entry in state["finished"]]
        self._started.update(dict(state["started"]))
        self._counts.update(state["counts"])
        self._corpora.update(dict.fromkeys(state["corpora"]))
        kept = {name for entry in self._entries for name in (entry.name, index_path(Path(entry.name)).name)}
        later = {path.name for path in self._folder.iterdir()} - kept - {name for _, name, _ in state["open"]}
        for name in later:
            (self._folder / name).unlink()
        for entry in self._entries:
            _check_size(self._folder / entry.name, entry.bytes, exactly=True)
        for language, name, size in state["open"]:
            _check_size(self._folder / name, size)
            self._open[language] = _OpenShard(self._folder / name, language, size)


def _check_size(path: Path, expected: int, exactly: bool = False) -> None:
    found = path.stat().st_size if path.exists() else -1
    if found < expected or (exactly and found != expected):
        raise ShardError(
            f"{path}: {f'{found:,} bytes' if found >= 0 else 'not there'}, expected {expected:,}; what an interrupted "
            "conversion left behind was changed since. Start over with `--restart`"
        )


@contextlib.contextmanager
def disk_errors_explained(output: Path) -> Iterator[None]:
    """A full disk or a folder without permission is the user's to repair, not a bug."""
    try:
        yield
    except OSError as error:
        raise ShardError(
            f"{output}: cannot be written ({error.strerror or error}), so there is no such folder now. Make room or "
            "choose another output folder, then convert again"
        ) from error


class _OpenShard:
    """A tar being written, its hash and its index.

    Args:
        path: the tar.
        language: of its pairs.
        size: bytes of a tar that is there and will be continued behind them.
    """

    def __init__(self, path: Path, language: str | None, size: int = 0) -> None:
        self.path, self.language, self.bytes = path, language, 0
        self._hash = hashlib.sha256()
        self._index = bytearray(MARK)
        self._keys: set[str] = set()
        if size:
            os.truncate(path, size)
            for key, sample in _samples(path):
                self._note([key], np.array([len(sample)]), np.array([zlib.crc32(sample)], np.uint32), sample)
        self._file = path.open("ab" if size else "wb", buffering=1 << 20)

    @property
    def samples(self) -> int:
        return len(self._keys)

    def add(
        self, keys: Sequence[str], sizes_N: NDArray[np.int64], checksums_N: NDArray[np.uint32], content: Bytes
    ) -> None:
        new = set(keys)
        if len(new) < len(keys) or not new.isdisjoint(self._keys):
            key = next(key for i, key in enumerate(keys) if key in self._keys or key in keys[:i])
            raise ShardError(f"{self.path.name}: key {key} occurs twice; give every corpus its own name")
        self._file.write(content)
        self._note(keys, sizes_N, checksums_N, content)

    def _note(
        self, keys: Sequence[str], sizes_N: NDArray[np.int64], checksums_N: NDArray[np.uint32], content: Bytes
    ) -> None:
        self._keys.update(keys)
        self._index += index_entries(self.bytes, sizes_N, checksums_N)
        self._hash.update(content)
        self.bytes += len(content)

    def sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> ShardEntry:
        """End the archive (two zero blocks), flush it and its index to disk."""
        end = bytes(2 * tarfile.BLOCKSIZE)
        self._file.write(end)
        self._hash.update(end)
        self.sync()
        self._file.close()
        with index_path(self.path).open("wb") as index:
            index.write(self._index)
            index.flush()
            os.fsync(index.fileno())
        return ShardEntry(self.path.name, self.language, self.samples, self.bytes + len(end), self._hash.hexdigest())

    def abandon(self) -> None:
        with contextlib.suppress(OSError):  # closing flushes, and fails again on a full disk
            self._file.close()


def _samples(path: Path) -> Iterator[tuple[str, bytes]]:
    """Keys and bytes of the samples of a tar that was cut between two of them."""
    with tarfile.open(path) as archive, path.open("rb") as file:
        starts: dict[str, int] = {}
        for member in archive:
            starts.setdefault(member.name.partition(".")[0], member.offset)
        ends = [*starts.values(), path.stat().st_size][1:]
        for (key, start), end in zip(starts.items(), ends, strict=True):
            yield key, file.read(end - start)
