"""Queries with passages that answer them and passages that do not, as JSON lines of retrieval training.

Read as they are written for Tevatron (``positive_passages``), FlagEmbedding (``pos``, ``neg``, ``pos_scores``) and
sentence-transformers (``query``, ``positive``, ``negative_1`` ...).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from optical_scale.corpora.jsonl import parse_json
from optical_scale.corpora.reader import PART, LeftOut, check_language, check_text, read_lines, sanitize_key
from optical_scale.errors import CorpusError
from optical_scale.records import TextPair


@dataclass(frozen=True)
class ListsCorpus:
    """One object per line: a query and its passages. Every passage that answers it makes a pair with all negatives.

    A passage is a text, or an object with ``text`` and perhaps ``title``, which goes before it; a field holds one or a
    list of them. Blank negatives, and those that are equal to a passage that answers, are left out and counted.

    Attributes:
        name: corpus name; keys are ``{name}-{language}-{line:08d}``, from the second answer on with ``-{number}``.
        path: the file, plain or compressed.
        language: BCP-47 tag of the queries.
        query: field of the query.
        positives: field of passages that answer it.
        negatives: fields of passages that do not, one after the other.
        scores: fields of one or more numbers, in all as many as positives and negatives, in their order; empty: none.

    Raises:
        CorpusError: ``language`` is no tag.
    """

    name: str
    path: Path
    language: str
    query: str
    positives: str
    negatives: tuple[str, ...]
    scores: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_language(self.language)

    @property
    def languages(self) -> tuple[str, ...]:
        """The one language of the queries."""
        return (self.language,)

    def count(self) -> int:
        """Number of pairs, blank ones included; reads the whole file.

        Raises:
            CorpusError: the file is missing, empty or malformed.
        """
        return self._pairs

    @cached_property
    def _pairs(self) -> int:
        pairs = sum(isinstance(item, TextPair) for item in self)
        if not pairs:
            raise CorpusError(f"{self.path}: the file is empty; expected one JSON object per line")
        return pairs

    def __iter__(self) -> Iterator[TextPair | LeftOut]:
        """Stream the pairs in file order.

        Raises:
            CorpusError: the file cannot be read, or a line is no JSON object, lacks a field, or a field does not fit.
        """
        prefix = sanitize_key(f"{self.name}-{self.language}")
        for number, line in enumerate(read_lines(self.path), start=1):
            key = f"{prefix}-{number:08d}"
            if line.strip():
                yield from self._line(parse_json(line, f"{self.path}:{number}"), key, f"{self.path}:{number}")
            else:
                yield TextPair(key, self.language, "", "", self.name)

    def _line(self, fields: object, key: str, where: str) -> Iterator[TextPair | LeftOut]:
        if not isinstance(fields, dict):
            raise CorpusError(f"{where}: {type(fields).__name__}; expected a JSON object")
        query = check_text(_field(fields, self.query, where), f"{where}: field {self.query!r}")
        positives = _passages(fields, self.positives, where) or [""]
        negatives = [text for name in self.negatives for text in _passages(fields, name, where)]
        scores = [number for name in self.scores for number in _numbers(fields, name, where)]
        if self.scores and len(scores) != len(positives) + len(negatives):
            raise CorpusError(
                f"{where}: {len(scores)} scores for {len(positives)} positive and {len(negatives)} negative passages; "
                "expected one for each, in this order"
            )
        kept = [at for at, text in enumerate(negatives) if text and text not in positives]
        yield from left_out(self.name, self.language, negatives.count(""), len(negatives) - len(kept))
        texts = tuple(negatives[at] for at in kept)
        for number, positive in enumerate(positives):
            judged = (scores[number], *(scores[len(positives) + at] for at in kept)) if scores else ()
            own = f"{key}-{number}" if number else key
            yield TextPair(own, self.language, positive, query, self.name, texts, judged)


def left_out(corpus: str, language: str, blank: int, all_: int) -> Iterator[LeftOut]:
    """Account for negatives that are blank, and for those that are passages which answer."""
    for reason, number in (("blank negative", blank), ("answer among negatives", all_ - blank)):
        if number:
            yield LeftOut(corpus, language, PART + reason, number)


def _field(fields: dict[str, Any], name: str, where: str) -> Any:
    if name not in fields:
        has = ", ".join(map(repr, list(fields)[:8]))
        raise CorpusError(f"{where}: no field {name!r}; found {has}")
    return fields[name]


def _passages(fields: dict[str, Any], name: str, where: str) -> list[str]:
    value = _field(fields, name, where)
    values = value if isinstance(value, list) else [] if value is None else [value]
    return [_passage(item, f"{where}: field {name!r}") for item in values]


def _passage(value: object, where: str) -> str:
    if not isinstance(value, dict):
        return check_text(value, where)
    if "text" not in value:
        raise CorpusError(f"{where}: a passage with {', '.join(map(repr, value))}; expected `text`, perhaps `title`")
    title, text = check_text(value.get("title"), where), check_text(value["text"], where)
    return f"{title} {text}".strip()


def _numbers(fields: dict[str, Any], name: str, where: str) -> list[float]:
    value = _field(fields, name, where)
    values = value if isinstance(value, list) else [value]
    for number in values:
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise CorpusError(f"{where}: field {name!r} holds {number!r:.40}; expected finite numbers")
    return [float(number) for number in values]
