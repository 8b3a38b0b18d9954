"""Which writing system a text is in: texts in the wrong one, and pairs whose sides were swapped."""

from collections.abc import Mapping, Sequence

import regex

from optical_scale.errors import CorpusError
from optical_scale.records import TextPair

_PARTS = {"Hans": ("Hani",), "Hant": ("Hani",), "Jpan": ("Hani", "Hira", "Kana"), "Kore": ("Hang", "Hani")}
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

    def _written(self, script: "_Marks", text: str) -> bool:
        letters, inside = script.count(text)
        return letters == 0 or inside >= self._minimum * letters


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
    letters, latin = _LATIN.count(text)
    return 2 * latin - letters


class _Marks(dict[int, str]):
    """For ``str.translate``: ``+`` for a letter of some scripts, ``-`` for another one, nothing for what is no letter.

    Several times faster than searching for runs of letters.
    """

    def __init__(self, script: "regex.Pattern[str]") -> None:
        super().__init__()
        self._script = script

    def __missing__(self, code: int) -> str:
        character = chr(code)
        self[code] = "" if not character.isalpha() else "+" if self._script.match(character) else "-"
        return self[code]

    def count(self, text: str) -> tuple[int, int]:
        """Letters in all, and those of the scripts."""
        marks = text.translate(self)
        return len(marks), marks.count("+")


def _letters(codes: Sequence[str]) -> _Marks:
    """Marks the letters of any of the scripts."""
    scripts = [part for code in codes for part in _PARTS.get(code, (code,))]
    try:
        return _Marks(regex.compile("[{}]".format("".join(rf"\p{{Script={script}}}" for script in scripts))))
    except regex.error:
        raise CorpusError(
            f"filters.scripts: {', '.join(codes)} is no script of ISO 15924; expected for example Latn, Deva or Ethi"
        ) from None


_LATIN = _letters([ENGLISH])
