"""Translations in XLIFF 1.x and 2.x, as localisation tools exchange them, streamed."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from optical_scale.corpora.reader import check_language, sanitize_key
from optical_scale.corpora.xml_events import TextCollector, xml_events
from optical_scale.errors import CorpusError
from optical_scale.records import TextPair

_UNITS = frozenset({"trans-unit", "segment"})
"""What holds one source and one target: in version 1 and in version 2."""
_OTHER = frozenset({"alt-trans", "ignorable", "bpt", "ept", "it", "ph", "sub"})
"""Elements whose content is a suggestion, blanks between sentences, or markup of the translated document."""


@dataclass(frozen=True)
class XliffCorpus:
    """One pair per unit (version 1) or segment (version 2) of the parts between English and the language.

    Either may be the source. A unit without target is a pair with a blank side: the filters drop and count it. Inline
    markup is left out, the text between it stays; suggested translations are no pairs.

    Attributes:
        name: corpus name; keys are ``{name}-{language}-{unit:08d}``, counted over the whole file.
        path: the file, plain or compressed.
        language: BCP-47 tag of the other side.
        code: how the file writes that language; regions may follow: ``pt`` also finds ``pt-BR``. Empty: ``language``.
        source_code: how the file writes English; ``en`` also finds ``en-US``.

    Raises:
        CorpusError: ``language`` is no tag.
    """

    name: str
    path: Path
    language: str
    code: str = ""
    source_code: str = "en"

    def __post_init__(self) -> None:
        check_language(self.language)

    @property
    def languages(self) -> tuple[str, ...]:
        """The one language beside English."""
        return (self.language,)

    def count(self) -> int:
        """Number of pairs, after reading the whole file once.

        Raises:
            CorpusError: the file is missing, malformed, or has no unit between the two languages.
        """
        return self._pairs

    @cached_property
    def _pairs(self) -> int:
        between: set[tuple[str, str]] = set()
        pairs = sum(1 for _ in self._units(between))
        if not pairs:
            found = ", ".join(f"{source or '?'} to {target or '?'}" for source, target in sorted(between))
            raise CorpusError(
                f"{self.path}: no unit between `{self.source_code}` and `{self.code or self.language}`; the file has "
                f"{found or 'no units'}. Set `code` and `source_code` as the file writes them"
            )
        return pairs

    def __iter__(self) -> Iterator[TextPair]:
        """Stream the pairs in file order; raises as :meth:`count`, before the first pair."""
        self.count()
        prefix = sanitize_key(f"{self.name}-{self.language}")
        for unit, english, other in self._units(set()):
            yield TextPair(f"{prefix}-{unit:08d}", self.language, english, other, self.name)

    def _units(self, between: set[tuple[str, str]]) -> Iterator[tuple[int, str, str]]:
        """Number, English, other; ``between`` collects the languages of the parts that have units."""
        wanted = self.source_code, self.code or self.language
        for unit, (languages, source, target) in enumerate(self._segments(), start=1):
            between.add(languages)
            if all(map(_is, languages, wanted)):
                yield unit, source, target
            elif all(map(_is, languages, reversed(wanted))):
                yield unit, target, source

    def _segments(self) -> Iterator[tuple[tuple[str, str], str, str]]:
        """Languages, source, target of every unit."""
        languages, texts = ("", ""), {"source": "", "target": ""}
        inside, side, other = False, "", 0
        collector = TextCollector(self.path)
        for event in xml_events(self.path):
            name = event.name.rpartition(":")[2]
            if event.kind == "text":
                if side and not other:
                    collector.add(event)
            elif event.kind == "start":
                if name in ("xliff", "file"):
                    languages = _languages(event.attributes, languages)
                elif name in _UNITS:
                    inside, texts = True, {"source": "", "target": ""}
                elif inside and name in texts and not other:
                    side = name
                other += name in _OTHER
            elif name in _OTHER:
                other -= 1
            elif name == side and not other:
                texts[side], side = collector.take(), ""
            elif name in _UNITS:
                inside = False
                yield languages, texts["source"], texts["target"]


def _languages(attributes: object, before: tuple[str, str]) -> tuple[str, str]:
    """Those of ``<file>`` in version 1 and of ``<xliff>`` in version 2; what an element does not say stays."""
    found = dict(attributes) if isinstance(attributes, dict) else {}
    source = found.get("source-language") or found.get("srcLang") or before[0]
    target = found.get("target-language") or found.get("trgLang") or before[1]
    return source, target


def _is(found: str, wanted: str) -> bool:
    """Whether a language is the wanted one, perhaps of a region."""
    return f"{found}-".lower().replace("_", "-").startswith(f"{wanted}-".lower().replace("_", "-"))
