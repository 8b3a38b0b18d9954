"""Bitext as JSON lines, the two texts in named and possibly nested fields."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from optical_scale.corpora.reader import check_language, check_text, count_lines, read_lines, sanitize_key
from optical_scale.errors import CorpusError
from optical_scale.records import TextPair


@dataclass(frozen=True)
class JsonLinesCorpus:
    """One object per line. An empty line, and a null text, is a blank pair: the filters drop and count it.

    Attributes:
        name: corpus name; keys are ``{name}-{language}-{line:08d}``.
        path: the file, plain or compressed.
        language: BCP-47 tag of the other side.
        source: field of the English side; dots lead into objects, as in ``translation.en``.
        target: field of the other side.

    Raises:
        CorpusError: ``language`` is no tag.
    """

    name: str
    path: Path
    language: str
    source: str
    target: str

    def __post_init__(self) -> None:
        check_language(self.language)

    @property
    def languages(self) -> tuple[str, ...]:
        """The one language beside English."""
        return (self.language,)

    def count(self) -> int:
        """Number of lines.

        Raises:
            CorpusError: the file is missing or empty.
        """
        return self._lines

    @cached_property
    def _lines(self) -> int:
        if not (lines := count_lines(self.path)):
            raise CorpusError(f"{self.path}: the file is empty; expected one JSON object per line")
        return lines

    def __iter__(self) -> Iterator[TextPair]:
        """Stream the pairs in file order.

        Raises:
            CorpusError: as :meth:`count`; or a line is no JSON object, lacks a field, or its field is no string.
        """
        self.count()
        prefix = sanitize_key(f"{self.name}-{self.language}")
        for number, line in enumerate(read_lines(self.path), start=1):
            where = f"{self.path}:{number}"
            values = parse_json(line, where) if line.strip() else None
            source, target = ("" if values is None else _field(values, path, where) for path in self._fields)
            yield TextPair(f"{prefix}-{number:08d}", self.language, source, target, self.name)

    @cached_property
    def _fields(self) -> tuple[list[str], list[str]]:
        return self.source.split("."), self.target.split(".")


def parse_json(text: str, where: str) -> object:
    """Any JSON value.

    Raises:
        CorpusError: the text is not JSON, or nested deeper than the interpreter can follow.
    """
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{where}: not JSON ({error}): {text[:60]!r}; expected one whole value") from None
    return value


def _field(value: object, path: list[str], where: str) -> str:
    for name in path:
        if not isinstance(value, dict) or name not in value:
            has = ", ".join(map(repr, list(value)[:8])) if isinstance(value, dict) else type(value).__name__
            raise CorpusError(f"{where}: no field {'.'.join(path)!r}; expected {name!r}, found {has}")
        value = value[name]
    return check_text(value, f"{where}: field {'.'.join(path)!r}")
