"""Bitext in two aligned files, one sentence per line, as Moses, OPUS and most translation tasks publish it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

from optical_scale.corpora.reader import TextFile, check_language, count_lines, read_lines, sanitize_key
from optical_scale.errors import CorpusError
from optical_scale.records import TextPair


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

    def __iter__(self) -> Iterator[TextPair]:
        """Stream the pairs in file order, each side without blanks around it.

        Raises:
            CorpusError: as :meth:`count`, before the first pair; or a line is not UTF-8, with file and line.
        """
        self.count()
        prefix = sanitize_key(f"{self.name}-{self.language}")
        sides = zip(read_lines(self.source_path), read_lines(self.target_path), strict=True)
        for line, (source, target) in enumerate(sides, start=1):
            yield TextPair(f"{prefix}-{line:08d}", self.language, source.strip(), target.strip(), self.name)
