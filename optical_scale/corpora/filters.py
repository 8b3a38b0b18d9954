"""Which pairs are not worth training on, and how many there were of each kind.

A rule looks at one pair and names the reason to drop it, or returns None. :func:`filtered` applies rules in order and
counts the first reason, so nothing disappears without a number.
"""

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from tokenizers import Tokenizer

from optical_scale.corpora.reader import PART, LeftOut, read_lines
from optical_scale.errors import CorpusError
from optical_scale.records import Record, TextPair

Rule = Callable[[TextPair], str | None]
Unit = Literal["characters", "words"]
UnicodeForm = Literal["NFC", "NFKC"]


class DropCounts:
    """Numbers of records kept and dropped.

    Attributes:
        kept: by (corpus, language); images have the language ``""``, their captions their own.
        dropped: by (corpus, language, reason), captions of images included.
        parts: the same for boxes and phrases that were left out of records kept otherwise.
    """

    def __init__(self, **state: Iterable[Sequence[Any]]) -> None:
        self.kept: Counter[tuple[str, str]] = Counter()
        self.dropped: Counter[tuple[str, str, str]] = Counter()
        self.parts: Counter[tuple[str, str, str]] = Counter()
        for name, numbers in state.items():
            vars(self)[name].update({tuple(key): number for *key, number in numbers})

    def state(self) -> dict[str, list[list[Any]]]:
        """Plain JSON that ``DropCounts(**state)`` is made from again."""
        return {name: [[*key, number] for key, number in counter.items()] for name, counter in vars(self).items()}

    def add(self, other: "DropCounts") -> None:
        """Add the numbers of ``other``."""
        self.kept.update(other.kept)
        self.dropped.update(other.dropped)
        self.parts.update(other.parts)

    def drop_kept(self, corpus: str, language: str, reason: str, number: int = 1) -> None:
        """Count pairs as dropped that were counted as kept."""
        self.kept[corpus, language] -= number
        self.dropped[corpus, language, reason] += number

    def reasons(self, corpus: str, language: str) -> dict[str, int]:
        """Dropped records of one corpus and language by reason, most frequent first."""
        found = {key[2]: number for key, number in self.dropped.items() if key[:2] == (corpus, language)}
        return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def filtered(records: Iterable[Record | LeftOut], rules: Iterable[Rule], counts: DropCounts) -> Iterator[Record]:
    """Yield the records that no rule drops and count all of them, and what readers left out.

    Pairs with a blank side are always dropped. Images pass: their choice is the split file.
    """
    rules = (blank, *rules)
    for record in records:
        if isinstance(record, LeftOut):
            kind = counts.parts if record.reason.startswith(PART) else counts.dropped
            kind[record.corpus, record.language, record.reason] += record.number
            continue
        if isinstance(record, TextPair):
            language = record.language
            reason = next((found for rule in rules if (found := rule(record))), None)
        else:
            language, reason = "", None
            for caption in record.captions:
                counts.kept[record.corpus, caption.language] += 1
        if reason is None:
            counts.kept[record.corpus, language] += 1
            yield record
        else:
            counts.dropped[record.corpus, language, reason] += 1


def unicode_normalized(records: Iterable[Record | LeftOut], form: UnicodeForm) -> Iterator[Record | LeftOut]:
    """Yield the records with the texts of pairs in one Unicode form; images pass, their phrases count characters."""
    for record in records:
        if isinstance(record, TextPair):
            source, target, *negatives = (
                unicodedata.normalize(form, text) for text in (record.source, record.target, *record.negatives)
            )
            record = replace(record, source=source, target=target, negatives=tuple(negatives))
        yield record


def blank(pair: TextPair) -> str | None:
    """Drop pairs of which one side has no visible character."""
    return None if pair.source.strip() and pair.target.strip() else "blank"


def length(text: str, unit: Unit) -> int:
    """Number of characters, or of words between blanks (meaningless for Thai, Chinese and other unspaced scripts)."""
    return len(text) if unit == "characters" else len(text.split())


class LengthBounds:
    """Drop pairs with a side shorter than ``minimum`` or longer than ``maximum`` (None: no limit)."""

    def __init__(self, unit: Unit, minimum: int = 1, maximum: int | None = None) -> None:
        if maximum is not None and maximum < minimum:
            raise CorpusError(f"no text has at least {minimum} and at most {maximum} {unit}; swap the bounds")
        self.unit, self.minimum, self.maximum = unit, minimum, maximum

    def __call__(self, pair: TextPair) -> str | None:
        """Reason ``too_short`` or ``too_long``."""
        sizes = length(pair.source, self.unit), length(pair.target, self.unit)
        if min(sizes) < self.minimum:
            return "too_short"
        return "too_long" if self.maximum is not None and max(sizes) > self.maximum else None


class LengthRatio:
    """Drop pairs of which one side is more than ``maximum`` times as long as the other."""

    def __init__(self, maximum: float, unit: Unit = "characters") -> None:
        if maximum < 1:
            raise CorpusError(f"a length ratio of at most {maximum} drops every pair; expected 1 or more")
        self.maximum, self.unit = maximum, unit

    def __call__(self, pair: TextPair) -> str | None:
        """Reason ``length_ratio``."""
        sizes = length(pair.source, self.unit), length(pair.target, self.unit)
        return "length_ratio" if max(sizes) > self.maximum * min(sizes) else None


def untranslated(pair: TextPair) -> str | None:
    """Drop pairs with two equal sides, but for case, punctuation and spacing; never English paraphrases."""
    same = pair.language.split("-")[0] != "en" and normalized(pair.source) == normalized(pair.target)
    return "untranslated" if same else None


class TokenRatio:
    """Drop pairs of which one side has more than ``maximum`` times as many tokens as the other.

    Args:
        maximum: largest ratio, 1 or more.
        tokenizer: a ``tokenizer.json`` file, best of the student.

    Raises:
        CorpusError: the file is no tokenizer.
    """

    def __init__(self, maximum: float, tokenizer: Path) -> None:
        self._maximum = maximum
        try:
            self._tokenizer = Tokenizer.from_file(str(tokenizer))
        except Exception as error:  # the library raises nothing narrower
            raise CorpusError(f"{tokenizer}: no tokenizer ({error}); expected a tokenizer.json file") from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def __call__(self, pair: TextPair) -> str | None:
        """Reason ``token_ratio``."""
        both = self._tokenizer.encode_batch([pair.source, pair.target], add_special_tokens=False)
        sizes = [len(side.ids) for side in both]
        return "token_ratio" if max(sizes) > self._maximum * min(sizes) else None


def pair_digest(pair: TextPair) -> int:
    """64 bits of language, sides and negatives; among 6 billion different pairs one collision is expected."""
    return _digest("\n".join((pair.language, pair.source, pair.target, *pair.negatives)))


class HeldOut:
    """Drop pairs of which either side is also a line of a file kept for evaluation.

    Lines are compared after :func:`normalized`, so another case, punctuation or spacing does not hide a copy.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        texts = (normalized(line) for path in paths for line in read_lines(path))
        self._held_out = {_digest(text) for text in texts if text}

    def __call__(self, pair: TextPair) -> str | None:
        """Reason ``held_out``."""
        sides = normalized(pair.source), normalized(pair.target)
        return "held_out" if any(_digest(side) in self._held_out for side in sides if side) else None


class _Simplify(dict[int, str]):
    """For ``str.translate``: punctuation, symbols and invisible characters vanish, blanks become spaces."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        major = "Z" if character.isspace() else unicodedata.category(character)[0]
        self[code] = {"Z": " ", "P": "", "S": "", "C": ""}.get(major, character)
        return self[code]


_SIMPLIFY = _Simplify()


def normalized(text: str) -> str:
    """Compatibility characters unified, case folded, punctuation and invisible characters removed, single spaces."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).translate(_SIMPLIFY).split())


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
