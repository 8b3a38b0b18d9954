"""Bibles in the Corpus Encoding Standard, one XML file per translation, joined by verse.

The layout of Christodoulopoulos and Steedman, "A massively parallel corpus: the Bible in 100 languages", Language
Resources and Evaluation, 2015: ``<seg id="b.GEN.1.1" type="verse">``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from optical_scale.corpora.reader import check_language, sanitize_key
from optical_scale.corpora.xml_events import TextCollector, xml_events
from optical_scale.errors import CorpusError
from optical_scale.records import TextPair


@dataclass(frozen=True)
class BibleCorpus:
    """One pair per verse of either file; a verse that one lacks has a blank side, which the filters drop and count.

    Both translations are held in memory, some 10 MB.

    Attributes:
        name: corpus name; keys are ``{name}-{language}-{verse id}``, as ``bible-sw-b_gen_1_1``.
        source_path: the English translation, plain or compressed.
        target_path: the other one.
        language: BCP-47 tag of the other side.

    Raises:
        CorpusError: ``language`` is no tag.
    """

    name: str
    source_path: Path
    target_path: Path
    language: str

    def __post_init__(self) -> None:
        check_language(self.language)

    @property
    def languages(self) -> tuple[str, ...]:
        """The one language beside English."""
        return (self.language,)

    def count(self) -> int:
        """Number of different verses in both files.

        Raises:
            CorpusError: a file is missing or malformed or repeats a verse, or the two have no verse in common.
        """
        return len(self._verses)

    @cached_property
    def _verses(self) -> dict[str, tuple[str, str]]:
        """By id, English order first, then what only the other has."""
        source, target = read_verses(self.source_path), read_verses(self.target_path)
        if not source.keys() & target.keys():
            raise CorpusError(
                f"{self.name}: no verse of {self.source_path} ({next(iter(source))}, …) is in {self.target_path} "
                f"({next(iter(target))}, …); expected the same ids, such as b.GEN.1.1"
            )
        return {verse: (source.get(verse, ""), target.get(verse, "")) for verse in {**source, **target}}

    def __iter__(self) -> Iterator[TextPair]:
        """Stream the verses; raises as :meth:`count`."""
        for verse, (source, target) in self._verses.items():
            key = sanitize_key(f"{self.name}-{self.language}-{verse}")
            yield TextPair(key, self.language, source, target, self.name)


def read_verses(path: Path) -> dict[str, str]:
    """Texts by verse id, in file order.

    Raises:
        CorpusError: the XML is malformed, a verse has no id or that of another, or there is none.
    """
    verses: dict[str, str] = {}
    verse: str | None = None
    collector = TextCollector(path)
    for event in xml_events(path):
        if event.kind == "text":
            if verse is not None:
                collector.add(event)
        elif event.name == "seg" and event.kind == "start":
            verse = event.attributes.get("id", "")
            if not verse or verse in verses:
                what = f"the id {verse!r} of an earlier one" if verse else "no id"
                raise CorpusError(f"{path}:{event.line}: a <seg> with {what}; expected one such as b.GEN.1.1")
        elif event.name == "seg" and verse is not None:
            verses[verse] = collector.take()
            verse = None
    if not verses:
        raise CorpusError(f'{path}: no verse; expected `<seg id="b.GEN.1.1" type="verse">` for each')
    return verses
