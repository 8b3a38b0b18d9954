"""Random access to the samples of a shard folder, safe in loader processes."""

import contextlib
import os
import zlib
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

from optical_scale.errors import ShardError
from optical_scale.records import Record
from optical_scale.shards.codec import decode
from optical_scale.shards.index import MARK, IndexEntry, entry_position, index_bytes, index_path
from optical_scale.shards.layout import Layout
from optical_scale.shards.manifest import Manifest, ShardEntry, read_manifest
from optical_scale.shards.remote import RemoteShards

_OPEN_SHARDS = 32
_PIECE = 1 << 16
_PIECES = 4096
_REOPENINGS = 3


class ShardFolder:
    """A folder written by ``optical-scale convert``, or of foreign tars that ``optical-scale index`` made readable.

    Files are opened when needed, at most 32 shards at a time, and read by position, so forked processes that share
    the descriptors do not disturb each other; a pickled copy opens its own. Not meant for several threads.

    Small samples are read in pieces of 64 KiB, no more than a kernel reads ahead anyway, of which a process keeps the
    latest 256 MiB for all its folders: the stream comes back to the same pieces while it is in a window of its order.

    Args:
        path: folder with ``manifest.json``.
        remote: where the shards come from if they are not in ``path``, which is then ``remote.folder``.

    Raises:
        ShardError: there is no sound manifest.
    """

    def __init__(self, path: Path, remote: RemoteShards | None = None) -> None:
        self.path = path
        self._remote = remote
        self.manifest: Manifest = read_manifest(path)
        self._handles: OrderedDict[str, _Handle] = OrderedDict()
        self._views: dict[str | None, ShardView] = {}

    @classmethod
    def fetched(cls, remote: RemoteShards) -> "ShardFolder":
        """The folder behind a URL, whose shards are fetched when they are first read.

        Raises:
            ShardError: the manifest cannot be fetched or is not sound.
        """
        return cls(remote.refresh(), remote)

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
            handle = self._handles[shard.name] = self._open(shard)
        self._handles.move_to_end(shard.name)
        return handle.read(sample)

    def _open(self, shard: ShardEntry) -> "_Handle":
        path = self.path / shard.name
        layout = self.manifest.layout
        if self._remote is None:
            return _Handle(path, shard, layout)
        for _ in range(_REOPENINGS):
            self._remote.open(shard)
            with contextlib.suppress(ShardError):  # another process made room between the two lines
                return _Handle(path, shard, layout)
        return _Handle(path, shard, layout)


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


class Pieces:
    """The latest aligned pieces of files; bounded in bytes.

    Folders of one process share them, and these may serve different threads. Steps that others could disturb are single
    operations of the dictionary, so no lock is needed that a forked process could inherit while it is held.
    """

    def __init__(self, most: int = _PIECES) -> None:
        self.most = most
        self._kept: OrderedDict[tuple[Hashable, int], bytes] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def read(self, shard: Hashable, file: int, entry: IndexEntry) -> bytes:
        """The bytes of ``entry``, fewer if the file ends before."""
        first, end = entry.offset // _PIECE, entry.offset + entry.size
        if entry.size > _PIECE:
            return os.pread(file, entry.size, entry.offset)
        data = self._piece(shard, file, first)
        if end > (first + 1) * _PIECE:
            data += self._piece(shard, file, first + 1)
        start = entry.offset - first * _PIECE
        return data[start : start + entry.size]

    def _piece(self, shard: Hashable, file: int, number: int) -> bytes:
        key = (shard, number)
        known = self._kept.get(key)
        data = os.pread(file, _PIECE, number * _PIECE) if known is None else known
        with contextlib.suppress(KeyError):  # another thread dropped it meanwhile
            if known is None:
                self._kept[key] = data
                while len(self._kept) > self.most:
                    self._kept.popitem(last=False)
            else:
                self._kept.move_to_end(key)
        return data


PIECES = Pieces()


class _Handle:
    """Open tar and whole index of one shard."""

    def __init__(self, path: Path, entry: ShardEntry, layout: Layout | None) -> None:
        self._path, self._folder, self._layout = path, path.parent, layout
        self._tar: int | None = None
        try:
            self._index = index_path(path).read_bytes()
            self._expect(index_path(path), len(self._index), index_bytes(entry.samples))
            if not self._index.startswith(MARK):
                raise self._damaged(f"{index_path(path)} is no index of this format", "unreadable shard")
            self._tar = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            status = os.fstat(self._tar)
            self._identity = (status.st_dev, status.st_ino, status.st_mtime_ns)
            self._expect(path, status.st_size, entry.bytes)
        except OSError as error:
            self.close()
            missing = isinstance(error, FileNotFoundError)
            raise self._damaged(
                f"{error.filename}: {error.strerror}", "missing shard" if missing else "unreadable shard"
            ) from None
        except ShardError:
            self.close()
            raise

    def _expect(self, file: Path, found: int, expected: int) -> None:
        if found != expected:
            raise self._damaged(f"{file} has {found:,} bytes, expected {expected:,}", "truncated shard")

    def read(self, sample: int) -> Record:
        assert self._tar is not None
        where = f"{self._path}, sample {sample}"
        entry = IndexEntry.unpack(self._index, entry_position(sample))
        try:
            data = PIECES.read(self._identity, self._tar, entry)
        except OSError as error:
            raise self._damaged(f"{where}: cannot be read ({error.strerror})", "unreadable shard") from None
        if len(data) != entry.size or zlib.crc32(data) != entry.checksum:
            raise self._damaged(f"{where}: the bytes differ from those that were written")
        try:
            return decode(data) if self._layout is None else self._layout.decode(data, self._path.name)
        except ValueError as error:
            raise self._damaged(f"{where}: {error}") from None

    def _damaged(self, what: str, reason: str = ShardError.reason) -> ShardError:
        error = ShardError(f"{what}; run `optical-scale verify {self._folder}`, then copy or convert the folder again")
        error.reason = reason
        return error

    def close(self) -> None:
        if self._tar is not None:
            os.close(self._tar)
            self._tar = None
