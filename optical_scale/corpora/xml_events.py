"""XML of any size as a stream of events, without the dangers of XML.

No tree is built, no entity is defined or expanded, and nothing outside the file is read.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple, NoReturn
from xml.parsers import expat

from optical_scale.corpora.reader import open_bytes
from optical_scale.errors import CorpusError

_PIECE_BYTES = 1 << 16
MAX_TEXT = 1 << 20
"""Characters after which a text between two tags is refused, far above any sentence: memory stays bounded."""


class XmlEvent(NamedTuple):
    """Start or end of the element ``name``, or ``text`` inside it, on a line of the file (counted from 1)."""

    kind: Literal["start", "end", "text"]
    line: int
    name: str = ""
    attributes: Mapping[str, str] = {}
    text: str = ""


def xml_events(path: Path) -> Iterator[XmlEvent]:
    """Stream the elements and texts of a file, plain or compressed, in the encoding that it declares.

    A DOCTYPE may name a DTD, as TMX files do; it is not read.

    Raises:
        CorpusError: the XML is malformed or cut short, or defines or uses entities of its own; with file and line.
    """
    parser = expat.ParserCreate()
    parser.buffer_text = True
    events: list[XmlEvent] = []

    def refuse(*names: object) -> NoReturn:
        raise CorpusError(
            f"{path}:{parser.CurrentLineNumber}: defines or uses the entity {names[0]!r}; entities can make a small "
            "file expand without bound and are refused. Replace them by the characters they stand for"
        )

    def start(name: str, attributes: dict[str, str]) -> None:
        events.append(XmlEvent("start", parser.CurrentLineNumber, name, attributes))

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda name: events.append(XmlEvent("end", parser.CurrentLineNumber, name))
    parser.CharacterDataHandler = lambda text: events.append(XmlEvent("text", parser.CurrentLineNumber, text=text))
    parser.EntityDeclHandler = refuse
    parser.SkippedEntityHandler = refuse
    with open_bytes(path) as file:
        try:
            while piece := file.read(_PIECE_BYTES):
                parser.Parse(piece, False)
                yield from events
                events.clear()
            parser.Parse(b"", True)
            yield from events
        except expat.ExpatError as error:
            raise CorpusError(
                f"{path}:{error.lineno}: not well-formed XML ({expat.errors.messages[error.code]}); "
                "fetch the file again, or repair it"
            ) from None
        except (LookupError, ValueError) as error:  # an encoding that Python does not know, or cannot use here
            raise CorpusError(f"{path}:1: {error}; convert the file to UTF-8") from None


class TextCollector:
    """The text of an element, whose pieces arrive as events; blanks are joined as XML means them.

    Args:
        path: file for messages.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pieces: list[str] = []
        self._size = 0

    def add(self, event: XmlEvent) -> None:
        """Append the text of an event.

        Raises:
            CorpusError: the element has more than :data:`MAX_TEXT` characters.
        """
        self._pieces.append(event.text)
        self._size += len(event.text)
        if self._size > MAX_TEXT:
            raise CorpusError(
                f"{self._path}:{event.line}: a text of more than {MAX_TEXT:,} characters; expected a sentence. "
                "Look for a closing tag that is missing"
            )

    def take(self) -> str:
        """The text so far; starts anew."""
        text = " ".join("".join(self._pieces).split())
        self._pieces.clear()
        self._size = 0
        return text
