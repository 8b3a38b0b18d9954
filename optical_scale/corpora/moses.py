"""Bitext in two aligned files, one sentence per line, as Moses, OPUS and most translation tasks publish it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path

from optical_scale.corpora.line_parts import LinePart, line_parts
from optical_scale.corpora.reader import (
    Deferred,
    Item,
    LeftOut,
    TextFile,
    check_language,
    count_lines,
    is_plain,
    read_all,
    read_lines,
    sanitize_key,
)
from optical_scale.errors import CorpusError
from optical_scale.records import Record, TextPair

_LINES = 512
"""Lines of a part."""


@dataclass(frozen=True)
class MosesCorpus:
    """Line n of one file means line n of the other. Files may be compressed; memory does not grow with their size.

    Pairs with a blank side are yielded, so that keys are line numbers; :func:`optical_scale.corpora.filters.filtered`
    drops and counts them.

    Attributes:
        name: corpus name; keys are ``{name}-{language}-{line:08d}``.
        source_path: the English side.
        target_path: the other side.
        language: BCP-47 tag of the other side.

    Raises:
        CorpusError: ``language`` is no tag.
    """

    name: str
    source_path: TextFile
    target_path: TextFile
    language: str

    def __post_init__(self) -> None:
        check_language(self.language)

    @property
    def languages(self) -> tuple[str, ...]:
        """The one language beside English."""
        return (self.language,)

    def count(self) -> int:
        """Number of pairs, blank ones included.

        Raises:
            CorpusError: a file is missing or empty, or the two have different numbers of lines.
        """
        return self._lines

    @cached_property
    def _lines(self) -> int:
        sides = self.source_path, self.target_path
        source, target = counts = tuple(count_lines(path) for path in sides)
        for path, lines in zip(sides, counts, strict=True):
            if lines == 0:
                raise CorpusError(f"{path}: the file is empty; expected one sentence per line")
        if source != target:
            first = min(counts) + 1
            longer = sides[source < target]
            text = next(islice(read_lines(longer), first - 1, None))
            raise CorpusError(
                f"{self.name}: {self.source_path} has {source:,} lines, {self.target_path} has {target:,}; "
                f"{longer}:{first} has no partner: {text[:60]!r}. Line n of one file must translate line n of the "
                "other; if a line was lost earlier, all pairs after it are wrong. Align the files again"
            )
        return source

    def __iter__(self) -> Iterator[Record | LeftOut]:
        """Stream the pairs in file order, each side without blanks around it.

        Raises:
            CorpusError: as :meth:`count`, before the first pair; or a line is not UTF-8, with file and line.
        """
        return read_all(self.deferred())

    def deferred(self) -> Iterator[Item]:
        """Parts of files that are not compressed, or pairs.

        Raises:
            CorpusError: as iterating.
        """
        self.count()
        paths = self.source_path, self.target_path
        source, target = paths
        if isinstance(source, Path) and isinstance(target, Path) and all(map(is_plain, paths)):
            light = replace(self)
            for both in zip(line_parts(source, _LINES), line_parts(target, _LINES), strict=True):
                lines = min(_LINES, self._lines - both[0].line + 1)
                yield Deferred(repr(both), partial(light._part, both), lines, lines)
        else:
            yield from self._join(zip(read_lines(source), read_lines(target), strict=True), 1)

    def _part(self, sides: tuple[LinePart, LinePart]) -> Iterator[TextPair]:
        return self._join(zip(*(side.read() for side in sides), strict=True), sides[0].line)

    def _join(self, pairs: Iterable[tuple[str, str]], first: int) -> Iterator[TextPair]:
        prefix = sanitize_key(f"{self.name}-{self.language}")
        for line, (source, target) in enumerate(pairs, first):
            yield TextPair(f"{prefix}-{line:08d}", self.language, source.strip(), target.strip(), self.name)
