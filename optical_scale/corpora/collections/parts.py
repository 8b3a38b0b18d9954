"""What a retrieval collection is made of, as plain values."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from optical_scale.errors import CorpusError


@dataclass(frozen=True, slots=True)
class Document:
    """A text to be found; ``id`` has no white space, because run files and judgements are split there."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Topic:
    """A text that searches."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """How relevant a document is to a topic; a grade ≤ 0 says that it is not."""

    topic: str
    document: str
    grade: int


DocumentReader = Callable[[Path], Iterator[Document]]
TopicReader = Callable[[Path], Iterator[Topic]]
JudgementReader = Callable[[Path], Iterator[Judgement]]


def check_id(text: str, where: str) -> str:
    """An id as it stands in run files.

    Raises:
        CorpusError: it is empty or holds white space.
    """
    if not text or len(text.split()) != 1 or text != text.strip():
        raise CorpusError(f"{where}: the id {text[:60]!r} is empty or holds white space; run files would split it")
    return text
