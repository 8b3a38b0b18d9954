"""A finished shard folder -> the same folder behind a URL, its manifest last."""

import json
from pathlib import Path
from typing import Any

from optical_scale.errors import ShardError
from optical_scale.runtime.attempts import attempt
from optical_scale.runtime.log import progress
from optical_scale.shards.index import index_path
from optical_scale.shards.manifest import FILE_NAME, read_manifest
from optical_scale.shards.verify import verify


def upload(folder: Path, url: str, *, attempts: int = 5, first_wait: float = 0.5) -> bool:
    """Copy a shard folder to any file system that fsspec can write: ``s3://``, ``gs://``, ``hf://``, ``file://``.

    Readers take a folder without manifest for none, and the manifest is copied after all other files, so nobody reads a
    half. After an interruption the same call copies everything anew.

    Args:
        folder: compared with its manifest first.
        url: the folder to make.
        attempts: tries of a failing copy, with waits of 0.5, 1, 2, … seconds in between.
        first_wait: the first of these waits.

    Returns:
        False if the same folder was there already.

    Raises:
        ShardError: ``folder`` is damaged, other shards lie at ``url``, or it cannot be written.
    """
    manifest = read_manifest(folder)
    if problems := verify(folder):
        raise ShardError(f"{folder}: {problems[0]}; {len(problems)} problems in all, so nothing was copied")
    system, root = _system(url)
    there = _fingerprint(system, root, url)
    if there == manifest.fingerprint:
        return False
    if there is not None:
        raise ShardError(f"{url}: other shards are there already (fingerprint {there}); choose another folder")
    names = [name for shard in manifest.shards for name in (shard.name, index_path(Path(shard.name)).name)]
    for name in progress([*names, FILE_NAME], "upload", unit="file"):
        _copy(system, folder / name, f"{root}/{name}", f"{url.rstrip('/')}/{name}", attempts, first_wait)
    return True


def _system(url: str) -> tuple[Any, str]:
    import fsspec

    try:
        system, root = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise ShardError(f"{url}: no file system for this URL ({error}); install its package, as s3fs") from None
    return system, str(root).rstrip("/")


def _fingerprint(system: Any, root: str, url: str) -> str | None:
    """Of the folder that is there; None if there is none."""
    try:
        return str(json.loads(system.cat_file(f"{root}/{FILE_NAME}")).get("fingerprint"))
    except FileNotFoundError:
        return None
    except Exception as error:  # file systems raise classes of their own
        raise ShardError(f"{url}: cannot be read ({error}); check the URL and the credentials") from error


def _copy(system: Any, source: Path, target: str, shown: str, attempts: int, first_wait: float) -> None:
    size = source.stat().st_size

    def put() -> None:
        system.makedirs(target.rpartition("/")[0], exist_ok=True)
        system.put_file(str(source), target)
        system.invalidate_cache()
        if (found := system.info(target)["size"]) != size:
            raise OSError(f"{found:,} bytes arrived, expected {size:,}")

    try:
        attempt(put, shown, attempts, first_wait)
    except Exception as error:  # file systems raise classes of their own
        raise ShardError(f"{shown}: cannot be written in {attempts} attempts ({error}); try again") from error
