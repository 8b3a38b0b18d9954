"""Bitext in two columns of a Parquet file, read by the optional package ``pyarrow``."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from optical_scale.corpora.reader import check_language, check_text, sanitize_key
from optical_scale.errors import CorpusError
from optical_scale.records import TextPair

_BATCH_ROWS = 4096


@dataclass(frozen=True)
class ParquetCorpus:
    """One pair per row; only the two columns are read, a batch at a time. A null is a blank side.

    Attributes:
        name: corpus name; keys are ``{name}-{language}-{row:08d}``, rows counted from 1.
        path: the file.
        language: BCP-47 tag of the other side.
        source: column of the English side; dots lead into structures, as in ``translation.en``.
        target: column of the other side.

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
        """Number of rows.

        Raises:
            CorpusError: ``pyarrow`` is not installed; or the file is missing, damaged, empty or without the columns.
        """
        return self._rows

    @cached_property
    def _rows(self) -> int:
        with self._open() as file:
            paths = [file.schema.column(column).path for column in range(len(file.schema))]
            for name in (self.source, self.target):
                if name not in paths:
                    raise CorpusError(f"{self.path}: no column {name!r}; it has {', '.join(paths)[:200]}")
            rows: int = file.metadata.num_rows
        if not rows:
            raise CorpusError(f"{self.path}: no row; expected one pair per row")
        return rows

    def __iter__(self) -> Iterator[TextPair]:
        """Stream the pairs in file order.

        Raises:
            CorpusError: as :meth:`count`; or a value is no string, or a block of the file is damaged.
        """
        self.count()
        prefix = sanitize_key(f"{self.name}-{self.language}")
        for number, (source, target) in enumerate(self._values(), start=1):
            where = f"{self.path}: row {number}, column"
            yield TextPair(
                f"{prefix}-{number:08d}",
                self.language,
                check_text(source, f"{where} {self.source!r}"),
                check_text(target, f"{where} {self.target!r}"),
                self.name,
            )

    def _values(self) -> Iterator[tuple[object, object]]:
        with self._open() as file:
            batches = file.iter_batches(batch_size=_BATCH_ROWS, columns=list({self.source: 0, self.target: 0}))
            while (batch := self._explained(next, batches, None)) is not None:
                yield from zip(*(_column(batch, name) for name in (self.source, self.target)), strict=True)

    def _open(self) -> Any:
        try:
            from pyarrow import parquet
        except ImportError:
            raise CorpusError(
                f"{self.path}: Parquet needs the package `pyarrow`; install `optical-scale[corpora]`"
            ) from None
        return self._explained(parquet.ParquetFile, self.path)

    def _explained(self, call: Any, *arguments: Any) -> Any:
        import pyarrow

        try:
            return call(*arguments)
        except (OSError, pyarrow.ArrowException, UnicodeDecodeError) as error:
            raise CorpusError(f"{self.path}: cannot be read ({error}); check the path, or fetch it again") from None


def _column(batch: Any, name: str) -> list[object]:
    """Values of a column that may lie in structures; a null structure gives nulls."""
    first, *rest = name.split(".")
    values: list[Any] = batch.column(first).to_pylist()
    for field in rest:
        values = [None if value is None else value[field] for value in values]
    return values
