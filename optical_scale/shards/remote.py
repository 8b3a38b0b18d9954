"""Shards behind a URL: fetched whole, checked, and kept on the node as long as there is room.

Any file system that fsspec knows will do (``s3://``, ``gs://``, ``hf://``, ``https://``, ``file://``), if its package
is installed. Processes of a node share the folder; a lock on each file lets one of them fetch while the others wait.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optical_scale.errors import ShardError
from optical_scale.runtime.attempts import attempt
from optical_scale.runtime.files import sha256
from optical_scale.shards.index import index_bytes, index_path
from optical_scale.shards.manifest import FILE_NAME, ShardEntry

logger = logging.getLogger(__name__)

_FIRST_WAIT = 0.5
_FAILED_FOR = 60.0


class RemoteShards:
    """A remote shard folder and its local cache.

    Args:
        url: the folder written by ``optical-scale convert``, as fsspec understands it.
        cache: folder on this node.
        most_bytes: room for shards; the least recently opened are deleted first. One shard is always kept.
        attempts: tries of a failing read, with waits of 0.5, 1, 2, … seconds in between.
        first_wait: the first of these waits.

    Attributes:
        folder: where the files of this URL lie.
    """

    def __init__(
        self, url: str, cache: Path, *, most_bytes: int, attempts: int = 5, first_wait: float = _FIRST_WAIT
    ) -> None:
        self.url = url.rstrip("/")
        self.cache = cache
        self.folder = cache / hashlib.blake2b(self.url.encode(), digest_size=8).hexdigest()
        self._most_bytes = most_bytes
        self._attempts = attempts
        self._first_wait = first_wait
        self._failed: dict[str, tuple[float, ShardError]] = {}
        self._systems: dict[int, Any] = {}

    def refresh(self) -> Path:
        """Fetch the manifest; files of an earlier one that it does not describe are deleted.

        Raises:
            ShardError: it cannot be read.
        """
        with self._lock(FILE_NAME):
            path = self.folder / FILE_NAME
            before = path.read_bytes() if path.exists() else None
            self._fetch(FILE_NAME)
            if before is not None and before != path.read_bytes():
                logger.warning("%s has changed; its cached shards are fetched again", self.url)
                for stale in self.folder.glob("*.tar*"):
                    stale.unlink()
        return self.folder

    def open(self, shard: ShardEntry) -> None:
        """Make sure that a shard and its index are in the folder.

        Raises:
            ShardError: they cannot be fetched, or are not those of the manifest.
        """
        if shard.name in self._failed:
            when, error = self._failed[shard.name]
            if time.monotonic() - when < _FAILED_FOR:  # else every sample of it would wait through all attempts
                raise error
            del self._failed[shard.name]
        path = self.folder / shard.name
        try:
            with self._lock(shard.name):
                if not (_has(path, shard.bytes) and _has(index_path(path), index_bytes(shard.samples))):
                    self._fetch(index_path(path).name, index_bytes(shard.samples))
                    self._fetch(shard.name, shard.bytes, shard.sha256)
                    self._make_room(path)
                with contextlib.suppress(OSError):
                    os.utime(path)
        except ShardError as error:
            self._failed[shard.name] = time.monotonic(), error
            raise

    def _fetch(self, name: str, size: int | None = None, digest: str | None = None) -> None:
        """Bring one file, whole or not at all."""
        temporary, url = self.folder / f".{name}.{os.getpid()}.tmp", f"{self.url}/{name}"

        def fetch() -> None:
            try:
                self._system().get_file(f"{self._root()}/{name}", str(temporary))
                _expect(temporary, url, size, digest)
                temporary.replace(self.folder / name)
            finally:
                temporary.unlink(missing_ok=True)

        try:
            attempt(fetch, url, self._attempts, self._first_wait)
        except FileNotFoundError:
            raise _error(f"{url} does not exist", "missing shard") from None
        except Exception as error:
            reason = error.reason if isinstance(error, ShardError) else "unreadable shard"
            raise _error(f"{url} cannot be read in {self._attempts} attempts: {error}", reason) from error

    def _system(self) -> Any:
        """The file system, one object per process: connections do not survive a fork."""
        import fsspec

        if os.getpid() not in self._systems:
            try:
                self._systems = {os.getpid(): fsspec.core.url_to_fs(self.url, skip_instance_cache=True)}
            except (ImportError, ValueError) as error:
                raise _error(f"{self.url}: no file system for this URL ({error})", "unreadable shard") from None
        return self._systems[os.getpid()][0]

    def _root(self) -> str:
        self._system()
        return str(self._systems[os.getpid()][1]).rstrip("/")

    def _make_room(self, keep: Path) -> None:
        """Delete the least recently opened shards of the whole cache until the rest fits."""
        found = []
        for path in self.cache.glob("*/*.tar"):
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                found.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self._most_bytes:
                return
            if path != keep:
                # Whoever has it open goes on reading; who opens it next fetches it again.
                path.unlink(missing_ok=True)
                index_path(path).unlink(missing_ok=True)
                total -= size

    @contextlib.contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f".{name}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_systems": {}}


def _has(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _expect(path: Path, what: str, size: int | None, digest: str | None) -> None:
    if size is not None and (found := path.stat().st_size) != size:
        raise _error(f"{what} has {found:,} bytes, expected {size:,}", "truncated shard")
    if digest is not None and (hashed := sha256(path)) != digest:
        raise _error(f"{what}: SHA-256 is {hashed}, the manifest says {digest}", "damaged sample")
    if path.name.startswith(f".{FILE_NAME}"):
        json.loads(path.read_bytes())  # a proxy's error page is tried again


def _error(what: str, reason: str) -> ShardError:
    error = ShardError(f"{what}; check the URL, the credentials and the folder behind it")
    error.reason = reason
    return error
