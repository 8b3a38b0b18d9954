"""What every corpus format shares: the protocol, lines that end where Moses tools end them, tags and keys."""

import bz2
import contextlib
import gzip
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

from optical_scale.corpora import zstd
from optical_scale.errors import CorpusError
from optical_scale.records import Record

_BUFFER_BYTES = 1 << 20
_GZIP, _XZ, _BZIP2 = b"\x1f\x8b", b"\xfd7zXZ\x00", re.compile(rb"BZh[1-9]1AY&SY")
_BOM, _UTF16_BOMS = b"\xef\xbb\xbf", (b"\xff\xfe", b"\xfe\xff")
_TAG = re.compile(r"[a-z]{2,3}(-[A-Z][a-z]{3})?(-([A-Z]{2}|[0-9]{3}))?(-[a-z0-9]{5,8})*")


@dataclass(frozen=True, slots=True)
class Member:
    """A file inside a zip archive, read in place: nothing is unpacked, so no name in the archive becomes a path."""

    archive: Path
    name: str

    def __str__(self) -> str:
        return f"{self.archive}!{self.name}"


TextFile = Path | Member


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What a reader itself leaves out, in the stream of its records, so that it is counted where they are.

    Attributes:
        corpus: name of the corpus.
        language: of the captions left out; ``""`` for images and for parts of them.
        reason: a word for it. With :data:`PART` before it, parts of records that are kept otherwise.
        number: how many.
    """

    corpus: str
    language: str
    reason: str
    number: int = 1


IMAGE_WORK = 32
"""Pairs of sentences that take as long to read, filter and encode as an image."""

PART = "part:"
"""Start of reasons that count boxes, phrases or negatives, not records."""


@dataclass(frozen=True, slots=True)
class Deferred:
    """A part of a corpus that may be read in another process, such as an image or some hundred lines.

    Attributes:
        identity: text that changes when the part does.
        read: gives its records and what is left out; picklable.
        records: how many they are.
        work: as many pairs take as long.
    """

    identity: str
    read: Callable[[], Iterable["Record | LeftOut"]]
    records: int = 1
    work: int = IMAGE_WORK


Item = Record | LeftOut | Deferred


def read_all(found: Iterable[Item]) -> Iterator[Record | LeftOut]:
    """The records of all items, read here."""
    for item in found:
        if isinstance(item, Deferred):
            yield from item.read()
        else:
            yield item


@runtime_checkable
class Deferring(Protocol):
    """A corpus of which parts may be read elsewhere, in any order."""

    def deferred(self) -> Iterator[Item]:
        """What iterating yields, with what can be put off put off."""


def items(corpus: "CorpusReader") -> Iterator[Item]:
    """What :meth:`Deferring.deferred` yields, of any corpus."""
    return corpus.deferred() if isinstance(corpus, Deferring) else iter(corpus)


class CorpusReader(Protocol):
    """A corpus on disk. Iterating streams its records in file order and may be repeated."""

    @property
    def name(self) -> str:
        """Name of the corpus, first part of every key."""

    @property
    def languages(self) -> tuple[str, ...]:
        """BCP-47 tags of the texts beside English."""

    def count(self) -> int:
        """Number of records that iterating yields or leaves out; checks that the files exist and fit together.

        Raises:
            CorpusError: a file is missing, empty or misaligned.
        """

    def __iter__(self) -> Iterator[Record | LeftOut]:
        """Stream the records, and between them what had to be left out.

        Raises:
            CorpusError: as :meth:`count`, or content is malformed; the message names file and line.
        """


def check_language(tag: str) -> str:
    """Return ``tag`` if it is a BCP-47 tag in its usual spelling, such as ``sw``, ``pt-BR`` or ``zh-Hans``.

    Raises:
        CorpusError: with the usual spelling if there is one; a second spelling would split one language in two.
    """
    if _TAG.fullmatch(tag):
        return tag
    first, *rest = tag.replace("_", "-").split("-")
    usual = "-".join([first.lower(), *(_usual_case(part) for part in rest)])
    advice = f"write `{usual}`" if _TAG.fullmatch(usual) else "expected for example `sw`, `pt-BR` or `zh-Hans`"
    raise CorpusError(f"language: `{tag}` is not a BCP-47 tag in its usual spelling; {advice}")


def _usual_case(subtag: str) -> str:
    """Case of a subtag after the first: Script, REGION, variant."""
    return {4: subtag.title(), 2: subtag.upper()}.get(len(subtag), subtag.lower())


def sanitize_key(text: str) -> str:
    """Lower-case ``text`` and replace all but ``[0-9a-z_-]`` by ``_``: webdataset splits keys at dots and slashes."""
    return re.sub(r"[^0-9a-z_-]", "_", text.lower())


def read_lines(path: TextFile) -> Iterator[str]:
    r"""Decode a UTF-8 text file, plain or compressed by gzip, bzip2, xz or zstd, line by line.

    Only ``\n`` ends a line. U+2028, U+0085, VT and FF stay inside it: ``str.splitlines`` would cut there and move every
    following line against the other side of the corpus. A byte order mark and a trailing ``\r`` are removed.

    Raises:
        CorpusError: the file cannot be read, is damaged, or is not UTF-8; the message is ``path:line: …``.
    """
    with open_bytes(path) as file:
        for number, raw in enumerate(file, start=1):
            if number == 1:
                raw = raw.removeprefix(_BOM)
            yield decode_line(raw.removesuffix(b"\n").removesuffix(b"\r"), path, number)


def decode_line(raw: bytes, path: TextFile, number: int) -> str:
    """Text of line ``number`` of ``path``.

    Raises:
        CorpusError: it is not UTF-8.
    """
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        utf16 = number == 1 and raw.startswith(_UTF16_BOMS)
        raise CorpusError(
            f"{path}:{number}: byte 0x{raw[error.start]:02x} at position {error.start + 1} is not UTF-8"
            f"{' (the file looks like UTF-16)' if utf16 else ''}; "
            f"convert the file, for example with `iconv -f {'UTF-16' if utf16 else 'LATIN1'} -t UTF-8`"
        ) from None


def is_plain(path: TextFile) -> bool:
    """Whether a file lies by itself and is not compressed, so that any part of it can be read at once.

    Raises:
        CorpusError: the file cannot be read or is damaged.
    """
    with _open_stored(path) as plain:
        return isinstance(path, Path) and _unpacked(plain, path) is None


def count_lines(path: TextFile) -> int:
    r"""Number of lines that :func:`read_lines` yields: ``\n`` bytes, plus one if the last line has none.

    Raises:
        CorpusError: the file cannot be read or is damaged.
    """
    lines, last = 0, b"\n"
    with open_bytes(path) as file:
        while piece := file.read(_BUFFER_BYTES):
            lines += piece.count(b"\n")
            last = piece[-1:]
    return lines + (last != b"\n")


@contextlib.contextmanager
def open_bytes(path: TextFile) -> Iterator[io.BufferedIOBase]:
    """Open for reading the unpacked bytes; compression is recognised by content, because names lie.

    Raises:
        CorpusError: the file cannot be read; or, from inside the block, it is damaged.
    """
    with contextlib.ExitStack() as stack:
        plain = stack.enter_context(_open_stored(path))
        stack.enter_context(_damage_explained(path))
        unpacked = _unpacked(plain, path)
        if unpacked is None:
            yield plain
        else:  # the buffer is several times faster over lines than the classes themselves
            yield stack.enter_context(io.BufferedReader(unpacked, _BUFFER_BYTES))


def _unpacked(
    plain: io.BufferedReader, path: TextFile
) -> gzip.GzipFile | lzma.LZMAFile | bz2.BZ2File | io.RawIOBase | None:
    start = plain.peek(16)
    if start.startswith(_GZIP):
        return gzip.GzipFile(fileobj=plain)
    if start.startswith(_XZ):
        return lzma.LZMAFile(plain)
    if _BZIP2.match(start):
        return bz2.BZ2File(plain)
    return zstd.open_frames(plain, str(path)) if start.startswith(zstd.MAGIC) else None


@contextlib.contextmanager
def _open_stored(path: TextFile) -> Iterator[io.BufferedReader]:
    """The bytes as they are stored."""
    try:
        if isinstance(path, Path):
            file: io.BufferedReader = path.open("rb")
        else:
            with zipfile.ZipFile(path.archive) as archive:  # an open member keeps the archive's file open by itself
                member = cast(zipfile.ZipExtFile, archive.open(path.name))
            file = io.BufferedReader(member, _BUFFER_BYTES)
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read ({error.strerror}); check the path in the configuration") from None
    except (zipfile.BadZipFile, KeyError, NotImplementedError, RuntimeError) as error:
        raise CorpusError(f"{path}: cannot be read ({error}); fetch the archive again, without a password") from None
    with file:
        yield file


@contextlib.contextmanager
def _damage_explained(path: TextFile) -> Iterator[None]:
    """Turn the many exceptions of damaged compressed files into one message."""
    try:
        yield
    except (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile) as error:
        raise CorpusError(f"{path}: damaged or cut short ({error}); fetch the file again") from None


def check_text(value: object, where: str) -> str:
    """A text out of JSON or a table of typed columns; null is blank, and the filters drop and count it.

    Raises:
        CorpusError: it is no string, or holds half of a surrogate pair, which no UTF-8 file can store.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise CorpusError(f"{where} is {type(value).__name__} {value!r:.60}; expected a string")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise CorpusError(f"{where} has no UTF-8 form ({error}); repair it") from None
    return value.strip()
