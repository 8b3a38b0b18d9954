"""Translation memories: TMX 1.4 and its elder versions, streamed."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from optical_scale.corpora.reader import check_language, sanitize_key
from optical_scale.corpora.xml_events import TextCollector, xml_events
from optical_scale.errors import CorpusError
from optical_scale.records import TextPair

_CODES = frozenset({"bpt", "ept", "it", "ph", "ut"})
"""Elements whose content is markup of the translated document, not text."""


@dataclass(frozen=True)
class TmxCorpus:
    """One pair per unit, or one per combination where a unit has several variants in a language.

    A unit without one of the languages is a pair with a blank side: the filters drop and count it. Markup inside
    segments is left out, highlighted text (``<hi>``) stays.

    Attributes:
        name: corpus name; keys are ``{name}-{language}-{unit:08d}``, further variants of a unit end in ``-2``, ``-3``.
        path: the file, plain or compressed.
        language: BCP-47 tag of the other side.
        code: how the file writes that language; regions may follow: ``pt`` also finds ``pt-BR``. Empty: ``language``.
        source_code: how the file writes English; ``en`` also finds ``EN-US``.

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
            CorpusError: the file is missing, malformed, has no unit, or no unit in both languages.
        """
        return self._pairs

    @cached_property
    def _pairs(self) -> int:
        pairs = both = 0
        codes: set[str] = set()
        for pair_of_unit in self._units(codes):
            pairs += 1
            both += bool(pair_of_unit[2] and pair_of_unit[3])
        if not both:
            raise CorpusError(
                f"{self.path}: none of {pairs:,} units has a text in `{self.source_code}` and in "
                f"`{self.code or self.language}`; the file has {', '.join(sorted(codes)[:20]) or 'no languages'}. "
                "Set `code` and `source_code` as the file writes them"
            )
        return pairs

    def __iter__(self) -> Iterator[TextPair]:
        """Stream the pairs in file order; raises as :meth:`count`, before the first pair."""
        self.count()
        prefix = sanitize_key(f"{self.name}-{self.language}")
        for unit, variant, source, target in self._units(set()):
            key = f"{prefix}-{unit:08d}" + (f"-{variant}" if variant > 1 else "")
            yield TextPair(key, self.language, source, target, self.name)

    def _units(self, codes: set[str]) -> Iterator[tuple[int, int, str, str]]:
        """Unit, variant, English, other; ``codes`` collects the languages that the file has."""
        wanted = _canonical(self.source_code), _canonical(self.code or self.language)
        for unit, texts in enumerate(self._segments(), start=1):
            codes.update(code for code, _ in texts)
            sources, targets = (
                [text for code, text in texts if f"{code}-".startswith(f"{prefix}-")] or [""] for prefix in wanted
            )
            pairs = ((source, target) for source in sources for target in targets)
            for variant, (source, target) in enumerate(pairs, start=1):
                yield unit, variant, source, target

    def _segments(self) -> Iterator[list[tuple[str, str]]]:
        """For each unit its (language, text) in file order."""
        texts: list[tuple[str, str]] = []
        language, inside_segment, inside_code = "", False, 0
        collector = TextCollector(self.path)
        for event in xml_events(self.path):
            if event.kind == "text":
                if inside_segment and not inside_code:
                    collector.add(event)
            elif event.kind == "start":
                if event.name == "tu":
                    texts = []
                elif event.name == "tuv":
                    language = _canonical(event.attributes.get("xml:lang") or event.attributes.get("lang", ""))
                    if not language:
                        raise CorpusError(f"{self.path}:{event.line}: <tuv> without xml:lang; name its language")
                inside_segment = inside_segment or event.name == "seg"
                inside_code += event.name in _CODES
            elif event.name == "seg":
                texts.append((language, collector.take()))
                inside_segment = False
            elif event.name == "tu":
                yield texts
            else:
                inside_code -= event.name in _CODES


def _canonical(code: str) -> str:
    return code.strip().lower().replace("_", "-")
