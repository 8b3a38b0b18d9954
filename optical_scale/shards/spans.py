"""Where the samples of a foreign webdataset tar lie, read with suspicion: such a tar may come from anywhere."""

import io
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from optical_scale.errors import ShardError

_LONGEST_NAME = 250
_LARGEST = 2**32 - 1  # what an index can hold
_PIECE = 1 << 20
_SIZE = re.compile(rb"[0-7]{11}[ \0]")
_CHANGING = re.compile(rb" (path|size|linkpath|GNU\.sparse[^=]*)=")  # extended headers that do more than name a time


class Span(NamedTuple):
    """The members of one sample: its key as it is written, and where they lie in the tar."""

    key: str
    offset: int
    size: int


def spans(path: Path) -> Iterator[Span]:
    """The samples of a tar in order, each a run of members that share a key.

    Raises:
        ShardError: the tar cannot be read, is cut short or holds anything else than samples; the message names the
            member.
    """
    end = 0
    start, key, extensions = 0, "", set[str]()
    seen = set[str]()
    for member in _members(path):
        if member.isdir():
            if key:
                yield _span(path, key, start, end)
                key = ""
        else:
            new, extension = _checked_name(path, member)
            if new != key:
                if key:
                    yield _span(path, key, start, end)
                if new in seen:
                    raise _refused(path, member.name, f"key {new!r} occurs twice, or its members lie apart")
                seen.add(new)
                start, key, extensions = member.offset, new, set()
            if extension in extensions:
                raise _refused(path, member.name, "the sample has this member twice")
            extensions.add(extension)
        end = member.offset_data + member.size + -member.size % tarfile.BLOCKSIZE
    if key:
        yield _span(path, key, start, end)
    _check_end(path, end)


def _members(path: Path) -> Iterator[tarfile.TarInfo]:
    """Headers one after the other; none is kept."""
    last = "its start"
    try:
        with tarfile.open(path, "r:") as archive:
            while (member := archive.next()) is not None:
                last = repr(member.name)
                yield member
                archive.members.clear()  # type: ignore[attr-defined]  # else all headers of a large tar are kept
    except OSError as error:
        raise ShardError(f"{path}: cannot be read ({error.strerror or error}); check the file") from None
    except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
        raise ShardError(
            f"{path}: after {last}: damaged, cut short or no plain tar ({error}); unpack it if it is compressed, else "
            "fetch or write it again"
        ) from None


def _checked_name(path: Path, member: tarfile.TarInfo) -> tuple[str, str]:
    """Key and extension of a member."""
    name = member.name.removeprefix("./")
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
        raise _refused(path, member.name, "it is a link, a device or a sparse file, not a plain one")
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\\" in name or not name.isprintable():
        raise _refused(path, member.name, "the name leads out of the archive or has characters that no key needs")
    if len(name) > _LONGEST_NAME:
        raise _refused(path, member.name, f"the name has {len(name)} characters; expected at most {_LONGEST_NAME}")
    key, extension = split_name(name)
    if not key or not extension:
        raise _refused(path, member.name, "the name is no `{key}.{extension}`")
    return key, extension


def split_name(name: str) -> tuple[str, str]:
    """Key and extension as webdataset cuts them: at the first dot after the last slash; empty if there are none."""
    name = name.removeprefix("./")
    folder, slash, file = name.rpartition("/")
    stem, _, extension = file.partition(".")
    return (f"{folder}{slash}{stem}", extension.lower()) if stem and extension else ("", "")


def _span(path: Path, key: str, start: int, end: int) -> Span:
    if end - start > _LARGEST:
        raise _refused(path, key, f"the sample has {end - start:,} bytes; expected at most {_LARGEST:,}")
    return Span(key, start, end - start)


def _check_end(path: Path, end: int) -> None:
    """After the last member only zeros may follow, at least one block: tarfile takes a broken header for the end."""
    found = 0
    with path.open("rb") as file:
        file.seek(end)
        while piece := file.read(_PIECE):
            if piece.count(0) != len(piece):
                raise ShardError(f"{path}: byte {end + found:,} and on: no tar header; fetch or write the tar again")
            found += len(piece)
    if found < tarfile.BLOCKSIZE:
        raise ShardError(f"{path}: ends without an end mark, so it may be cut short; fetch or write the tar again")


def _refused(path: Path, member: str, what: str) -> ShardError:
    return ShardError(
        f"{path}: member {member[:120]!r}: {what}; expected plain files `{{key}}.{{extension}}`, those of a sample "
        "side by side. Repair the program that wrote the tar, or convert its corpus instead"
    )


def members_of(sample: bytes) -> tuple[str, dict[str, bytes]]:
    """Key and contents by extension of the bytes of a :class:`Span`.

    Raises:
        ValueError: they are not one sample.
    """
    try:
        members = _plain_members(sample) or _any_members(sample)
    except (tarfile.TarError, OSError, KeyError) as error:  # KeyError: a link to nowhere
        raise ValueError(f"bad tar members ({error})") from None
    named = [(*split_name(name), content) for name, content in members]
    keys = {key for key, _, _ in named}
    if len(keys) != 1:
        raise ValueError(f"members of keys {sorted(keys)} are not one sample")
    return keys.pop(), {extension: content for _, extension, content in named}


def _plain_members(sample: bytes) -> list[tuple[str, bytes]] | None:
    """Names and contents where headers are simple, as nearly all are; None where only tarfile knows.

    Ten times as fast. Headers were checked when the tar was indexed, and readers compare a checksum of all bytes.
    """
    found = []
    position = 0
    while position < len(sample):
        header = sample[position : position + tarfile.BLOCKSIZE]
        if len(header) < tarfile.BLOCKSIZE or not _SIZE.fullmatch(header, 124, 136):
            return None
        size = int(header[124:135], 8)
        content = sample[position + tarfile.BLOCKSIZE : position + tarfile.BLOCKSIZE + size]
        kind = header[156:157]
        if kind == tarfile.XHDTYPE:
            if _CHANGING.search(content):
                return None
        else:
            name, _, _ = header[:100].partition(b"\0")
            if (
                kind not in (tarfile.REGTYPE, tarfile.AREGTYPE)
                or header[345]
                or not name.isascii()
                or len(content) < size
            ):
                return None
            found.append((name.decode("ascii"), content))
        position += tarfile.BLOCKSIZE + size + -size % tarfile.BLOCKSIZE
    return found


def _any_members(sample: bytes) -> list[tuple[str, bytes]]:
    """Names and contents of members of any format."""
    found = []
    with tarfile.open(fileobj=io.BytesIO(sample), mode="r:") as archive:
        for member in archive:
            content = archive.extractfile(member)
            if content is None:
                raise ValueError(f"{member.name} is no plain file")
            found.append((member.name, content.read()))
    return found
