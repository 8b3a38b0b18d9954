"""Random access to the samples of a shard folder, safe in loader processes."""

import os
import zlib
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

from optical_scale.errors import ShardError
from optical_scale.records import Record
from optical_scale.shards.codec import decode
from optical_scale.shards.index import ENTRY_BYTES, MARK, IndexEntry, entry_position, index_bytes, index_path
from optical_scale.shards.manifest import Manifest, ShardEntry, read_manifest

_OPEN_SHARDS = 32


class ShardFolder:
    """A folder written by ``optical-scale convert``.

    Files are opened when needed, at most 32 shards at a time, and read by position, so forked processes that share
    the descriptors do not disturb each other; a pickled copy opens its own. Not meant for several threads.

    Args:
        path: folder with ``manifest.json``.

    Raises:
        ShardError: there is no sound manifest.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest: Manifest = read_manifest(path)
        self._handles: OrderedDict[str, _Handle] = OrderedDict()
        self._views: dict[str | None, ShardView] = {}

    @property
    def languages(self) -> tuple[str, ...]:
        """Tags of the pairs or captions, sorted."""
        return self.manifest.languages

    def select(self, language: str | None = None) -> "ShardView":
        """The samples of one language as a sequence; all samples for None.

        Images carry captions in several languages, so for them every language gives all images.

        Raises:
            ShardError: the folder has nothing in ``language``.
        """
        if language is not None and language not in self.manifest.counts:
            raise ShardError(f"{self.path}: nothing in language `{language}`; it has {', '.join(self.languages)}")
        if language not in self._views:
            self._views[language] = ShardView(self, language)
        return self._views[language]

    def samples(self, language: str | None = None) -> int:
        """Number of samples of a language (pairs, or all images), or of the whole folder for None."""
        return len(self.select(language))

    def read(self, language: str | None, index: int) -> Record:
        """Sample ``index`` of ``select(language)``."""
        return self.select(language)[index]

    def iterate(self, language: str | None = None) -> Iterator[Record]:
        """All samples of ``select(language)`` in order."""
        return iter(self.select(language))

    def close(self) -> None:
        """Close the open files; reading opens them again."""
        while self._handles:
            self._handles.popitem()[1].close()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_handles": OrderedDict(), "_views": {}}

    def __del__(self) -> None:
        if "_handles" in self.__dict__:  # absent when the manifest was refused
            self.close()

    def _read(self, shard: ShardEntry, sample: int) -> Record:
        handle = self._handles.get(shard.name)
        if handle is None:
            if len(self._handles) >= _OPEN_SHARDS:
                self._handles.popitem(last=False)[1].close()
            handle = self._handles[shard.name] = _Handle(self.path / shard.name, shard)
        self._handles.move_to_end(shard.name)
        return handle.read(sample)


class ShardView:
    """The samples of one language, or of a whole folder, as a sequence of records in manifest order.

    Attributes:
        name: ``{corpora}:{language}@{start of the manifest's fingerprint}``: the same wherever the folder lies, another
            one as soon as its content changes.
        language: the tag asked for.
        shard_sizes: samples of each tar, in order.
    """

    def __init__(self, folder: ShardFolder, language: str | None) -> None:
        self._folder = folder
        self.language = language
        manifest = folder.manifest
        self.name = f"{'+'.join(manifest.corpora)}:{language or 'all'}@{manifest.fingerprint[:12]}"
        every = language is None or folder.manifest.kind == "images"
        self._shards = tuple(shard for shard in folder.manifest.shards if every or shard.language == language)
        self.shard_sizes = tuple(shard.samples for shard in self._shards)
        self._starts = tuple(accumulate(self.shard_sizes, initial=0))

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> Record:
        """Read one record; a negative index counts from the end.

        Raises:
            IndexError: ``index`` is out of range.
            ShardError: the shard is missing, cut short or damaged.
        """
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"sample {index} of {self.name}, which has {len(self)}")
        number = bisect_right(self._starts, position) - 1
        return self._folder._read(self._shards[number], position - self._starts[number])

    def __iter__(self) -> Iterator[Record]:
        return (self[index] for index in range(len(self)))


class _Handle:
    """Open files of one shard."""

    def __init__(self, path: Path, entry: ShardEntry) -> None:
        self._path, self._folder = path, path.parent
        self._descriptors: list[int] = []
        try:
            for file, expected in ((path, entry.bytes), (index_path(path), index_bytes(entry.samples))):
                self._descriptors.append(os.open(file, os.O_RDONLY | os.O_CLOEXEC))
                found = os.fstat(self._descriptors[-1]).st_size
                if found != expected:
                    raise self._damaged(f"{file} has {found:,} bytes, expected {expected:,}")
            if os.pread(self._descriptors[1], len(MARK), 0) != MARK:
                raise self._damaged(f"{index_path(path)} is no index of this format")
        except OSError as error:
            self.close()
            raise self._damaged(f"{error.filename}: {error.strerror}") from None
        except ShardError:
            self.close()
            raise

    def read(self, sample: int) -> Record:
        tar, index = self._descriptors
        where = f"{self._path}, sample {sample}"
        try:
            entry = IndexEntry.unpack(os.pread(index, ENTRY_BYTES, entry_position(sample)))
            data = os.pread(tar, entry.size, entry.offset)
        except OSError as error:
            raise self._damaged(f"{where}: cannot be read ({error.strerror})") from None
        if len(data) != entry.size or zlib.crc32(data) != entry.checksum:
            raise self._damaged(f"{where}: the bytes differ from those that were written")
        try:
            return decode(data)
        except ValueError as error:
            raise self._damaged(f"{where}: {error}") from None

    def _damaged(self, what: str) -> ShardError:
        return ShardError(f"{what}; run `optical-scale verify {self._folder}`, then copy or convert the folder again")

    def close(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.pop())
