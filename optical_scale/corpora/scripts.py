"""Which writing system a text is in: texts in the wrong one, and pairs whose sides were swapped."""

from collections.abc import Mapping, Sequence

import regex

from optical_scale.errors import CorpusError
from optical_scale.records import TextPair

_PARTS = {"Hans": ("Hani",), "Hant": ("Hani",), "Jpan": ("Hani", "Hira", "Kana"), "Kore": ("Hang", "Hani")}
_LETTERS = regex.compile(r"\p{L}+")
ENGLISH = "Latn"


class ScriptShare:
    """Drop pairs of which one side has too few letters of its language's script.

    English is Latin. Languages whose script is not given are not looked at, nor are texts without any letter.

    Args:
        minimum: smallest share of the letters of a side, between 0 and 1.
        scripts: by BCP-47 tag, the codes of ISO 15924 in which the language is written, such as ``Deva`` or ``Jpan``.

    Raises:
        CorpusError: a code is no script.
    """

    def __init__(self, minimum: float, scripts: Mapping[str, Sequence[str]]) -> None:
        self._minimum = minimum
        self._english = _letters([ENGLISH])
        self._scripts = {language: _letters(codes) for language, codes in scripts.items()}
        self._distinct = {language for language, codes in scripts.items() if ENGLISH not in codes}

    def __call__(self, pair: TextPair) -> str | None:
        """Reason ``script``, or ``swapped`` if each side is in the script of the other."""
        script = self._scripts.get(pair.language)
        if script is None:
            return None
        if self._written(self._english, pair.source) and self._written(script, pair.target):
            return None
        swapped = self._written(script, pair.source) and self._written(self._english, pair.target)
        return "swapped" if swapped and pair.language in self._distinct else "script"

    def _written(self, script: "regex.Pattern[str]", text: str) -> bool:
        letters = _number(_LETTERS, text)
        return letters == 0 or _number(script, text) >= self._minimum * letters


def _number(letters: "regex.Pattern[str]", text: str) -> int:
    """Letters in the runs that the pattern finds: several times faster than one match for each."""
    return sum(map(len, letters.findall(text)))


def swapped_scripts(pair: TextPair) -> str | None:
    """Drop pairs whose English side is mostly in another script than Latin while the other side is mostly Latin.

    Needs to know nothing about the language, and so misses swapped sides of languages in Latin script. Reason
    ``swapped``; pairs in English are not looked at.
    """
    if pair.language.split("-")[0] == "en" or not pair.source or pair.source.isascii():
        return None
    return "swapped" if _excess_of_latin(pair.source) < 0 < _excess_of_latin(pair.target) else None


def _excess_of_latin(text: str) -> int:
    """Latin letters less others."""
    return 2 * _number(_LATIN, text) - _number(_LETTERS, text)


def _letters(codes: Sequence[str]) -> "regex.Pattern[str]":
    """Matches a run of letters of any of the scripts."""
    scripts = [part for code in codes for part in _PARTS.get(code, (code,))]
    try:
        any_of = "".join(rf"\p{{Script={script}}}" for script in scripts)
        return regex.compile(rf"[[{any_of}]&&\p{{L}}]+", regex.V1)
    except regex.error:
        raise CorpusError(
            f"filters.scripts: {', '.join(codes)} is no script of ISO 15924; expected for example Latn, Deva or Ethi"
        ) from None


_LATIN = _letters([ENGLISH])
