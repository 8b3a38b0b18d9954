"""Token ids of bitext, written once and read by every run with the same tokenizers.

``{folder}/{corpus}-{language}/`` holds ``tokens.json`` (what the ids belong to, written last) and, for every 65,536
pairs, ``000000.ids.npy`` (uint32, English and target of one pair after another) and ``000000.ends.npy`` (int64, where
each text ends). Texts stay in their shards: keys, checksums and faults are those of a run without stored ids.
"""

import io
import json
import re
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optical_scale.errors import StreamError
from optical_scale.records import Record, TextPair
from optical_scale.runtime.files import write_atomic, write_json
from optical_scale.stream.source import Source, shard_sizes

PART = 65_536
_OPEN_PARTS = 256
_AT_ONCE = 1024
_FACTS = "tokens.json"
_REMEDY = "run `optical-scale tokenize` with the training's configuration"

Ids = NDArray[np.uint32]
Encode = Callable[[Sequence[str]], Sequence[Ids]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenisedPair(TextPair):
    """A pair that knows its token ids, as :meth:`~optical_scale.backbones.tokenizers.TextTokenizer.encode` gives them.

    Attributes:
        source_ids: of the English side.
        target_ids: of the other side.
    """

    source_ids: Ids
    target_ids: Ids


@dataclass(frozen=True, slots=True)
class Tokenizers:
    """What makes ids: how each side is encoded, and a digest of each that changes whenever an id could."""

    source: Encode
    target: Encode
    source_digest: str
    target_digest: str


def facts_of(source: Source, tokenizers: Tokenizers) -> dict[str, Any]:
    """What stored ids belong to; a source's name contains the fingerprint of its manifest."""
    return {
        "shards": source.name,
        "pairs": len(source),
        "teacher's tokenizer": tokenizers.source_digest,
        "student's tokenizer": tokenizers.target_digest,
    }


def folder_of(folder: Path, source: Source) -> Path:
    """Where the ids of ``source`` lie, whatever its shards hold today."""
    return folder / re.sub(r"[^A-Za-z0-9_.+-]", "-", source.name.split("@")[0])


def parts_of(source: Source) -> range:
    """Numbers of the parts of ``source``."""
    return range(-(-len(source) // PART))


def write_part(folder: Path, source: Source, tokenizers: Tokenizers, part: int) -> int:
    """Encode and store part ``part`` of ``source`` in :func:`folder_of`; returns the checksum of its ids.

    Raises:
        ShardError: a pair cannot be read.
    """
    indices = range(part * PART, min(len(source), (part + 1) * PART))
    rows: list[Ids] = []
    for start in range(0, len(indices), _AT_ONCE):
        pairs = [_text(source, index) for index in indices[start : start + _AT_ONCE]]
        sides = (tokenizers.source([p.source for p in pairs]), tokenizers.target([p.target for p in pairs]))
        rows += [ids for pair in zip(*sides, strict=True) for ids in pair]
    ids = np.concatenate(rows)
    for name, table in (("ids", ids), ("ends", np.cumsum([len(row) for row in rows], dtype=np.int64))):
        file = io.BytesIO()
        np.save(file, table)
        write_atomic(_path(folder_of(folder, source), part, name), file.getvalue())
    return zlib.crc32(ids.data)


def write_facts(folder: Path, source: Source, tokenizers: Tokenizers, checksums: Sequence[int]) -> None:
    """Declare the ids of ``source`` complete; ``checksums`` are those of its parts in order."""
    write_json(folder_of(folder, source) / _FACTS, facts_of(source, tokenizers) | {"checksums": list(checksums)})


def read_facts(folder: Path, source: Source) -> dict[str, Any] | None:
    """What the stored ids of ``source`` belong to; None if there are none."""
    try:
        facts: dict[str, Any] = json.loads((folder_of(folder, source) / _FACTS).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise StreamError(f"{folder_of(folder, source) / _FACTS}: unreadable ({error}); {_REMEDY}") from None
    return facts


class TokenisedSource:
    """A source whose pairs know their ids; everything else about it, above all its order, is as without.

    Args:
        source: of text pairs.
        folder: that ``optical-scale tokenize`` wrote.
        tokenizers: of this run.

    Raises:
        StreamError: the ids are missing, or belong to other shards or tokenizers.
    """

    def __init__(self, source: Source, folder: Path, tokenizers: Tokenizers) -> None:
        self.name = source.name
        self.language = source.language
        self.shard_sizes = shard_sizes(source)
        self._source = source
        self._folder = folder_of(folder, source)
        self._parts: OrderedDict[int, tuple[Ids, NDArray[np.int64]]] = OrderedDict()
        found = read_facts(folder, source)
        if found is None:
            raise StreamError(f"{self._folder} holds no token ids of {source.name}; {_REMEDY}")
        self._checksums = _checked(self._folder, found, facts_of(source, tokenizers))

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Record:
        """The pair with its ids.

        Raises:
            ShardError: the pair cannot be read.
            StreamError: its ids cannot.
        """
        pair = _text(self._source, index)
        ids, ends = self._part(index // PART)
        first = 2 * (index % PART)
        start, middle, end = (int(ends[first - 1]) if first else 0), int(ends[first]), int(ends[first + 1])
        return TokenisedPair(
            pair.key,
            pair.language,
            pair.source,
            pair.target,
            pair.corpus,
            source_ids=ids[start:middle],
            target_ids=ids[middle:end],
        )

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_parts": OrderedDict()}

    def _part(self, part: int) -> tuple[Ids, NDArray[np.int64]]:
        found = self._parts.get(part)
        if found is None:
            if len(self._parts) >= _OPEN_PARTS:
                self._parts.popitem(last=False)
            found = self._parts[part] = self._open(part)
        self._parts.move_to_end(part)
        return found

    def _open(self, part: int) -> tuple[Ids, NDArray[np.int64]]:
        path = _path(self._folder, part, "ids")
        try:
            ids = np.load(path, mmap_mode="r")
            ends = np.load(_path(self._folder, part, "ends"))
        except (OSError, ValueError) as error:
            raise StreamError(f"{path}: token ids cannot be read ({error}); {_REMEDY}") from None
        if len(ends) != 2 * min(PART, len(self) - part * PART) or zlib.crc32(ids.data) != self._checksums[part]:
            raise StreamError(f"{path}: damaged, the ids are not those written; delete {self._folder} and {_REMEDY}")
        return ids, ends


def _checked(folder: Path, found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[int]:
    changed = [f"{what} was {found.get(what)}, is {now}" for what, now in expected.items() if found.get(what) != now]
    if changed:
        raise StreamError(f"{folder}: the token ids are stale: {'; '.join(changed)}; {_REMEDY}, or leave tokens out")
    return list(found["checksums"])


def _text(source: Source, index: int) -> TextPair:
    record = source[index]
    assert isinstance(record, TextPair), "only bitext is tokenised beforehand"
    return record


def _path(folder: Path, part: int, name: str) -> Path:
    return folder / f"{part:06d}.{name}.npy"
