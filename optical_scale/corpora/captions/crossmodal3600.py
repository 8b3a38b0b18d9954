"""Crossmodal-3600 (Thapliyal et al., EMNLP 2022): images with captions in 36 languages."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from optical_scale.corpora.captioned import Entry
from optical_scale.corpora.jsonl import parse_json
from optical_scale.corpora.pictures import check_image_name
from optical_scale.corpora.reader import check_language, check_text, read_lines
from optical_scale.errors import CorpusError
from optical_scale.records import Caption

LANGUAGES = (
    "ar", "bn", "cs", "da", "de", "el", "en", "es", "fa", "fi", "fil", "fr", "he", "hi", "hr", "hu", "id", "it",
    "ja", "ko", "mi", "nl", "no", "pl", "pt", "quz", "ro", "ru", "sv", "sw", "te", "th", "tr", "uk", "vi", "zh",
)  # fmt: skip


@dataclass(frozen=True)
class Crossmodal3600Captions:
    """``captions.jsonl``; the untokenised captions, with ids ``{image key}#{n}``.

    Attributes:
        path: the file, plain or compressed.
        languages: those wanted, as the file writes them.

    Raises:
        CorpusError: a language is none of the 36.
    """

    path: Path
    languages: tuple[str, ...] = LANGUAGES

    def __post_init__(self) -> None:
        for language in self.languages:
            if check_language(language) not in LANGUAGES:
                raise CorpusError(f"language: Crossmodal-3600 has no {language!r}; it has {', '.join(LANGUAGES)}")

    def entries(self) -> Iterator[Entry]:
        """Every image in file order; errors as :meth:`CaptionLayout.entries`, or a wanted language has no caption."""
        seen: dict[str, str] = {}
        found: set[str] = set()
        for number, line in enumerate(read_lines(self.path), start=1):
            where = f"{self.path}:{number}"
            values = parse_json(line, where)
            key = values.get("image/key") if isinstance(values, dict) else None
            if not isinstance(values, dict) or not isinstance(key, str):
                raise CorpusError(f'{where}: no string "image/key"; expected a line of Crossmodal-3600\'s captions')
            if (first := seen.setdefault(key, where)) != where:
                raise CorpusError(f"{where}: image {key[:60]} is also at {first}; remove one")
            captions: list[Caption] = []
            for language in self.languages:
                texts = _texts(values, language, where)
                captions += (Caption(language, text, id=f"{key}#{n}") for n, text in enumerate(texts))
            found.update(caption.language for caption in captions)
            yield Entry(check_image_name(key, where), tuple(captions), where)
        if absent := [language for language in self.languages if language not in found]:
            raise CorpusError(f"{self.path}: no caption in {', '.join(absent)}; fetch the file again")


def _texts(values: dict[str, object], language: str, where: str) -> list[str]:
    of_language = values.get(language)
    if of_language is None:
        return []
    texts = of_language.get("caption") if isinstance(of_language, dict) else None
    if not isinstance(texts, list):
        raise CorpusError(f'{where}: {language!r} has no list "caption"; expected the untokenised captions there')
    return [check_text(text, f"{where}: {language} caption {n}") for n, text in enumerate(texts)]
