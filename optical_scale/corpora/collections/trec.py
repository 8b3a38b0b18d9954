"""Documents and topics in the tagged text of TREC, CLEF and FIRE: SGML whose tags are often left open, or XML."""

import html
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from optical_scale.corpora.collections.parts import Document, Topic, TopicReader, check_id
from optical_scale.corpora.reader import read_lines
from optical_scale.errors import CorpusError

MAX_RECORD = 1 << 26
"""Characters after which an element that does not close is refused."""

_TAG = re.compile(r"<(/?)([A-Za-z][\w.-]*)((?:\s[^<>]*)?)/?>")
_ATTRIBUTE_ID = re.compile(r"\b(?:number|num|id|docno)\s*=\s*[\"']([^\"']+)[\"']", re.IGNORECASE)
_ID_TAGS = ("docno", "docid", "num", "number", "identifier")
_LABEL = re.compile(r"\A\s*(?:Number|Topic|Description|Narrative)\s*:\s*")
_LANGUAGE_PREFIX = re.compile(r"\A[a-z]{2}-(?=title|desc|narr)")


def documents(path: Path) -> Iterator[Document]:
    """``<DOC>`` elements with ``<DOCNO>`` (or ``<DOCID>``, or an ``id`` attribute); all other text is the document's.

    Raises:
        CorpusError: the file cannot be read, an element does not close, or one has no usable id.
    """
    for where, attributes, body in _elements(path, ("doc",)):
        fields = _fields(body)
        name = _identify(attributes, fields, where)
        text = " ".join(text for tag, text in fields if tag not in _ID_TAGS)
        yield Document(name, " ".join(text.split()))


def topics(fields: Sequence[str] = ("title",)) -> TopicReader:
    """A reader of ``<top>`` or ``<topic>`` elements.

    Args:
        fields: the tags whose texts, joined in this order, are the query: ``title``, ``desc``, ``narr``, ``query``;
            CLEF's language prefix (``DE-title``) is left out.
    """
    return partial(_topics, tuple(fields))


def _topics(wanted: tuple[str, ...], path: Path) -> Iterator[Topic]:
    for where, attributes, body in _elements(path, ("top", "topic")):
        fields = [(_LANGUAGE_PREFIX.sub("", tag), _LABEL.sub("", text)) for tag, text in _fields(body)]
        name = _identify(attributes, fields, where)
        if missing := [tag for tag in wanted if tag not in dict(fields)]:
            has = ", ".join(dict(fields)) or "no tags"
            raise CorpusError(f"{where}: topic {name} has no <{missing[0]}>; it has {has}; choose among these")
        text = " ".join(text for tag in wanted for found, text in fields if found == tag)
        yield Topic(name, " ".join(text.split()))


def _elements(path: Path, names: tuple[str, ...]) -> Iterator[tuple[str, str, str]]:
    """Place, attributes and inner text of every element of these names; elements of one file are not nested."""
    either = "|".join(names)
    opening = re.compile(rf"<({either})(\s[^<>]*)?>", re.IGNORECASE)
    pieces: list[str] = []
    size, where, attributes, closing = 0, "", "", None
    for number, line in enumerate(read_lines(path), start=1):
        while True:
            if closing is None:
                if not (start := opening.search(line)):
                    break
                where, attributes = f"{path}:{number}", start.group(2) or ""
                closing = re.compile(rf"</{start.group(1)}\s*>", re.IGNORECASE)
                line, pieces, size = line[start.end() :], [], 0
            end = closing.search(line)
            pieces.append(line[: end.start()] if end else line)
            size += len(pieces[-1])
            if size > MAX_RECORD:
                raise CorpusError(
                    f"{where}: the element has over {MAX_RECORD:,} characters; look for a missing end tag"
                )
            if not end:
                break
            yield where, attributes, "\n".join(pieces)
            line, closing = line[end.end() :], None
    if closing is not None:
        raise CorpusError(f"{where}: the element that starts here does not end; the file is cut short or damaged")


def _fields(body: str) -> list[tuple[str, str]]:
    """Tag and text of each stretch of text; a tag ends at the next one, closed or not."""
    fields, tag, start = [], "", 0
    clean: Callable[[str], str] = html.unescape
    for match in [*_TAG.finditer(body), None]:
        text = clean(body[start : match.start() if match else len(body)])
        if text.strip():
            fields.append((tag, text))
        if match:
            tag, start = "" if match.group(1) else match.group(2).lower(), match.end()
    return fields


def _identify(attributes: str, fields: list[tuple[str, str]], where: str) -> str:
    named = dict(reversed(fields))
    found = next((named[tag] for tag in _ID_TAGS if tag in named), None)
    if found is None and (attribute := _ATTRIBUTE_ID.search(attributes)):
        found = attribute.group(1)
    return check_id(_LABEL.sub("", found or "").strip(), where)
