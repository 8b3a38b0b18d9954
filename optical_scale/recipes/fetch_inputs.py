"""What a conversion reads, brought from a URL into its folder."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from optical_scale.config.convert import ConvertConfig
from optical_scale.config.corpora import Parallel
from optical_scale.errors import CorpusError
from optical_scale.runtime.attempts import attempt
from optical_scale.runtime.log import progress


def fetch_inputs(config: ConvertConfig) -> None:
    """Fetch into ``config.folder`` what the configuration names, the folder lacks and ``config.remote`` has.

    Files appear whole or not at all, so an interrupted fetch goes on with the next file. What the remote side lacks is
    left to the readers to complain about, since it may be optional.

    Raises:
        CorpusError: the URL, or a file behind it, cannot be read.
    """
    if config.remote is None:
        return
    import fsspec

    try:
        system, root = fsspec.core.url_to_fs(config.remote)
    except (ImportError, ValueError) as error:
        raise CorpusError(f"remote: {config.remote}: no file system for this URL ({error})") from None
    root = str(root).rstrip("/")
    named = sorted({name for name in _names(config) if not Path(name).is_absolute()})
    try:
        wanted = [name for path in named for name in _files(system, root, path)]
        for name in progress(wanted, "fetch", len(wanted), "file"):
            if not (config.folder / name).exists():
                attempt(partial(_fetch, system, f"{root}/{name}", config.folder / name), f"{config.remote}/{name}")
    except Exception as error:  # file systems raise classes of their own
        raise CorpusError(f"{config.remote}: cannot be read ({error}); check the URL and the credentials") from error


def _names(config: ConvertConfig) -> Iterator[str]:
    """Relative paths of all that is read; of a parallel set those of its languages."""
    yield from _paths([*config.corpora, config.collection, config.filters])
    for corpus in config.corpora:
        if isinstance(corpus, Parallel):
            for language in corpus.languages:
                for pattern in (corpus.source, corpus.target):
                    yield pattern.replace("{code}", corpus.codes.get(language, language))


def _paths(value: Any) -> Iterator[str]:
    if isinstance(value, Path):
        yield value.as_posix()
    elif isinstance(value, BaseModel):
        yield from _paths([getattr(value, name) for name in type(value).model_fields])
    elif isinstance(value, dict):
        yield from _paths(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _paths(item)


def _files(system: Any, root: str, path: str) -> Iterator[str]:
    """The file behind a path, or all files of a folder, relative to the root."""
    here = f"{root}/{path}".rstrip("/").removesuffix("/.")
    for found in attempt(partial(system.find, here), here):
        yield os.path.relpath(str(found), root).replace(os.sep, "/")


def _fetch(system: Any, source: str, target: Path) -> None:
    size = system.info(source)["size"]
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        system.get_file(source, str(temporary))
        if (found := temporary.stat().st_size) != size:
            raise OSError(f"{source}: {found:,} bytes arrived, expected {size:,}")
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
