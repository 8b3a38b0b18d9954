"""Sets translated into many languages, one file for each, as pairs with English: TICO-19, FLORES and their like."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from optical_scale.corpora.moses import MosesCorpus
from optical_scale.corpora.reader import Item, LeftOut, read_all
from optical_scale.errors import CorpusError
from optical_scale.records import Record


@dataclass(frozen=True)
class ParallelCorpus:
    """Line n means the same in every file.

    Attributes:
        name: corpus name; keys are ``{name}-{language}-{line:08d}``, so one line number names one sentence in all.
        folder: where the patterns start.
        source: the English file; ``{code}`` in it stands for the other language, where each has its own English side.
        target: pattern of the other files, with ``{code}``.
        codes: by BCP-47 tag, what stands for ``{code}``.

    Raises:
        CorpusError: a tag is none, there is no language, or the pattern of the other files has no ``{code}``.
    """

    name: str
    folder: Path
    source: str
    target: str
    codes: Mapping[str, str]

    def __post_init__(self) -> None:
        if not self.codes or "{code}" not in self.target:
            raise CorpusError(
                f"{self.name}: target is {self.target!r} for {len(self.codes)} languages; expected "
                "at least one language, and `{code}` where its code stands in the file's name"
            )
        _ = self._pairs

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages beside English, in the given order."""
        return tuple(self.codes)

    @cached_property
    def _pairs(self) -> tuple[MosesCorpus, ...]:
        return tuple(
            MosesCorpus(
                self.name,
                self.folder / self.source.replace("{code}", code),
                self.folder / self.target.replace("{code}", code),
                language,
            )
            for language, code in self.codes.items()
        )

    def count(self) -> int:
        """Number of pairs of all languages, blank ones included.

        Raises:
            CorpusError: a file is missing or empty, or differs from its English side in its number of lines.
        """
        return sum(pair.count() for pair in self._pairs)

    def __iter__(self) -> Iterator[Record | LeftOut]:
        """Stream language after language; errors as those of :class:`MosesCorpus`, before the first pair of any."""
        return read_all(self.deferred())

    def deferred(self) -> Iterator[Item]:
        """As :meth:`MosesCorpus.deferred`."""
        self.count()
        for pair in self._pairs:
            yield from pair.deferred()
