"""Bitext in the columns of one text file: TSV and CSV, with a header or with columns named by the caller."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from optical_scale.corpora.lists import left_out
from optical_scale.corpora.reader import LeftOut, check_language, count_lines, read_lines, sanitize_key
from optical_scale.errors import CorpusError
from optical_scale.records import TextPair


@dataclass(frozen=True)
class TableCorpus:
    """One pair per row. An empty line is a blank pair: the filters drop and count it.

    Attributes:
        name: corpus name; keys are ``{name}-{language}-{line:08d}`` with the line on which the row starts.
        path: the file, plain or compressed.
        language: BCP-47 tag of the other side.
        source: name of the English column.
        target: name of the other column.
        columns: names of all columns if the file has no header; empty: the first row names them.
        delimiter: one character between columns.
        quoted: whether ``"`` surrounds fields with delimiters, quotes or line ends inside, as RFC 4180 has it.
            If not, a quote is a character like any other.
        negatives: names of columns of texts that do not answer the other column's; blank fields, and those that equal
            the English column, are left out and counted.

    Raises:
        CorpusError: ``language`` is no tag, or ``columns`` repeats a name or lacks one that is wanted.
    """

    name: str
    path: Path
    language: str
    source: str
    target: str
    columns: tuple[str, ...] = ()
    delimiter: str = "\t"
    quoted: bool = False
    negatives: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_language(self.language)
        if self.columns:
            self._positions(self.columns, f"{self.name}: columns")

    @property
    def languages(self) -> tuple[str, ...]:
        """The one language beside English."""
        return (self.language,)

    def count(self) -> int:
        """Number of rows below the header.

        Raises:
            CorpusError: the file is missing, empty or without the columns.
        """
        return self._rows

    @cached_property
    def _rows(self) -> int:
        _, first = next(self._read(), (0, None))
        if first is None:
            raise CorpusError(f"{self.path}: the file is empty; expected one pair per line")
        if not self.columns:
            self._positions(first, f"{self.path}:1: the header")
        lines = sum(1 for _ in self._read()) if self.quoted else count_lines(self.path)
        return lines - (not self.columns)

    def __iter__(self) -> Iterator[TextPair | LeftOut]:
        """Stream the pairs in file order.

        Raises:
            CorpusError: as :meth:`count`; or a row has another number of fields, or a line is not UTF-8.
        """
        self.count()
        rows = self._read()
        header = self.columns or next(rows)[1]
        source, target, *others = self._positions(header, f"{self.path}:1: the header")
        prefix = sanitize_key(f"{self.name}-{self.language}")
        for line, row in rows:
            if row in ([], [""]):
                row = [""] * len(header)
            if len(row) != len(header):
                raise CorpusError(
                    f"{self.path}:{line}: {len(row)} fields, expected {len(header)} ({', '.join(header)[:80]}) "
                    f"separated by {self.delimiter!r}: {self.delimiter.join(row)[:60]!r}; repair the row"
                    f"{'' if self.quoted else ', or set `quoted` if quotes surround fields'}"
                )
            row = [field.strip() for field in row]
            negatives = tuple(row[at] for at in others if row[at] and row[at] != row[source])
            yield from left_out(
                self.name, self.language, sum(not row[at] for at in others), len(others) - len(negatives)
            )
            yield TextPair(f"{prefix}-{line:08d}", self.language, row[source], row[target], self.name, negatives)

    def _read(self) -> Iterator[tuple[int, list[str]]]:
        """Rows with the number of their first line, the header included."""
        if not self.quoted:
            for number, line in enumerate(read_lines(self.path), start=1):
                yield number, line.split(self.delimiter)
            return
        rows = csv.reader((f"{line}\n" for line in read_lines(self.path)), delimiter=self.delimiter, strict=True)
        start = 1
        try:
            for row in rows:
                yield start, row
                start = rows.line_num + 1
        except csv.Error as error:
            raise CorpusError(
                f"{self.path}:{start}: the row that starts here is malformed ({error}); expected fields as in RFC 4180"
            ) from None

    def _positions(self, header: Sequence[str], where: str) -> list[int]:
        wanted = self.source, self.target, *self.negatives
        for name in wanted:
            if header.count(name) != 1:
                raise CorpusError(
                    f"{where} has {header.count(name)} columns named {name!r}; it names {', '.join(header)[:120]}. "
                    "Expected each that is wanted exactly once; give `columns` if the file has no header"
                )
        return [header.index(name) for name in wanted]
