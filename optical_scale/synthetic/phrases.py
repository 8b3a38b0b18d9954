"""Phrase kinds: what can be said, addressed by integers, and how to say it in each language.

A *slot* is a finite list of meanings with one way to say each (a territory, 3 hours, a date); a *kind* combines slots
by a template (``Kenya and Chad: 3 hours``). A phrase is a kind and one index per slot. Hence every kind has a known
size, distinct phrases can be drawn without replacement, and all languages say the same meaning.
"""

import datetime
import hashlib
import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from optical_scale.runtime.seeding import derive_seed
from optical_scale.synthetic.cldr import NameKind, Phrasebook, shared_inventory

Split = Literal["train", "validation", "test"]

_COUNTS = (2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 15, 16, 18, 20, 24, 25, 30, 40, 50, 60, 75, 80, 100, 120, 150, 200, 500)
_NUMBERS = (*_COUNTS, 0.5, 1.5, 2.5, 3.5, 7.5, 12.5)
_FIRST_YEAR, _YEARS = 1990, 40
_FIRST_DAY = datetime.date(_FIRST_YEAR, 1, 1)
_DAYS = (datetime.date(_FIRST_YEAR + _YEARS, 1, 1) - _FIRST_DAY).days
_MINUTES = 5  # times of day are multiples of this
_RELATIVE_UNITS = ("year", "month", "week", "day", "hour", "minute")
_RELATIVE_NUMBERS = tuple(sign * number for sign in (1, -1) for number in range(2, 31))


@dataclass(frozen=True, slots=True)
class Style:
    """How to say a meaning: the canonical form, or a paraphrase that is ``short``, ``turned`` around, or both."""

    short: bool = False
    turned: bool = False


CANONICAL = Style()
PARAPHRASES = (Style(short=True), Style(turned=True), Style(short=True, turned=True))

Say = Callable[[Phrasebook, int, bool], str]


@dataclass(frozen=True, slots=True)
class Slot:
    """A finite list of meanings: ``say(book, index, short)`` for ``0 <= index < size``."""

    name: str
    size: int
    say: Say


@dataclass(frozen=True, slots=True)
class Kind:
    """A phrase pattern.

    Attributes:
        name: for counting and messages.
        slots: what is combined.
        compose: ``compose(speaker, parts, style)`` joins the parts that the slots said.
    """

    name: str
    slots: tuple[Slot, ...]
    compose: Callable[[Phrasebook, Sequence[str], Style], str]

    @property
    def size(self) -> int:
        """Number of index tuples; those that repeat a member of a list are not said, so phrases are fewer."""
        return math.prod(slot.size for slot in self.slots)

    def indices(self, number: int) -> tuple[int, ...]:
        """The index tuple with this number, ``0 <= number < size`` (mixed radix)."""
        digits = []
        for slot in self.slots:
            number, digit = divmod(number, slot.size)
            digits.append(digit)
        return tuple(digits)

    def is_redundant(self, indices: Sequence[int]) -> bool:
        """True when a list would name the same thing twice."""
        used = list(zip((slot.name for slot in self.slots), indices, strict=True))
        return len(set(used)) < len(used)


class Speaker:
    """Says phrases in one language and formats each distinct component once."""

    def __init__(self, language: str) -> None:
        self.book = Phrasebook(language)
        self._said: dict[tuple[str, int, bool], str] = {}

    def say(self, kind: Kind, indices: Sequence[int], style: Style = CANONICAL) -> str:
        """The phrase as one line of text."""
        parts = [self._part(slot, index, style.short) for slot, index in zip(kind.slots, indices, strict=True)]
        return kind.compose(self.book, parts, style)

    def _part(self, slot: Slot, index: int, short: bool) -> str:
        key = (slot.name, index, short)
        text = self._said.get(key)
        if text is None:
            text = self._said[key] = slot.say(self.book, index, short)
        return text


def split_of(english: str) -> Split:
    """The split a phrase belongs to, a function of its English words whatever their order: 80, 10 and 10 percent.

    All languages, seeds and functions therefore agree, and neither a held-out sentence nor a reordering of its words
    is ever trained on.
    """
    words = sorted(english.casefold().replace(",", " ").replace(":", " ").split())
    share = int.from_bytes(hashlib.blake2b(" ".join(words).encode(), digest_size=4).digest(), "little") / 2**32
    return "train" if share < 0.8 else "validation" if share < 0.9 else "test"


def shuffled(size: int, source: random.Random) -> Iterator[int]:
    """The integers below ``size`` in random order, lazily: Fisher and Yates's shuffle of a list kept sparse."""
    moved: dict[int, int] = {}
    for last in range(size - 1, -1, -1):
        chosen = source.randrange(last + 1)
        yield moved.get(chosen, chosen)
        moved[chosen] = moved.pop(last, last)


def draw(kind: Kind, seed: int, *purpose: str) -> Iterator[tuple[Kind, tuple[int, ...]]]:
    """All phrases of a kind, each once, in an order that depends on seed and purpose."""
    for number in shuffled(kind.size, random.Random(derive_seed(seed, "phrases", *purpose, kind.name))):
        indices = kind.indices(number)
        if not kind.is_redundant(indices):
            yield kind, indices


def _named(table: NameKind, name: str) -> Slot:
    codes = getattr(shared_inventory(), table)
    return Slot(name, len(codes), lambda book, index, short: book.name(table, codes[index]))


def _product(name: str, *axes: Sequence[object], say: Callable[..., str]) -> Slot:
    """A slot over all combinations of ``axes``; ``say(book, *values, short)``."""
    values = list(itertools.product(*axes))
    return Slot(name, len(values), lambda book, index, short: say(book, *values[index], short))


def _date(weekday: bool) -> Slot:
    def say(book: Phrasebook, index: int, short: bool) -> str:
        return book.date(_FIRST_DAY + datetime.timedelta(days=index), weekday, short)

    return Slot("full date" if weekday else "date", _DAYS, say)


def _hours(book: Phrasebook, start: int, length: int, short: bool) -> str:
    return book.time_range(start, start + length, short)


def _days(book: Phrasebook, year: int, month: int, day: int, length: int, short: bool) -> str:
    return book.day_range(datetime.date(year, month, day), length, short)


def _months(book: Phrasebook, year: int, span: tuple[int, int], short: bool) -> str:
    return book.month_range(year, *span, short)


def _separated(book: Phrasebook, first: str, second: str, style: Style) -> str:
    """``first: second``; turned: ``second – first``."""
    if style.turned:
        return f"{second} – {first}"
    return f"{first} : {second}" if book.language == "fr" else f"{first}: {second}"


def _list(book: Phrasebook, parts: Sequence[str], style: Style, joiner: str = "standard") -> str:
    if style.short and joiner == "standard":
        joiner = "standard-short"
    return book.join(reversed(parts) if style.turned else parts, joiner)


def _in_brackets(_: Phrasebook, parts: Sequence[str], style: Style) -> str:
    inner = ", ".join(parts[1:])
    return f"{inner}: {parts[0]}" if style.turned else f"{parts[0]} ({inner})"


def _listed(joiner: str = "standard") -> Callable[[Phrasebook, Sequence[str], Style], str]:
    return lambda book, parts, style: _list(book, parts, style, joiner)


def _headed(book: Phrasebook, parts: Sequence[str], style: Style) -> str:
    """``A: B``."""
    return _separated(book, parts[0], parts[1], style)


def _list_headed(joiner: str = "standard") -> Callable[[Phrasebook, Sequence[str], Style], str]:
    """``A and B: C``."""

    def compose(book: Phrasebook, parts: Sequence[str], style: Style) -> str:
        return _separated(book, _list(book, parts[:-1], style, joiner), parts[-1], style)

    return compose


def _list_of_rest(book: Phrasebook, parts: Sequence[str], style: Style) -> str:
    """``A: B and C``."""
    return _separated(book, parts[0], _list(book, parts[1:], style), style)


def _dated(book: Phrasebook, parts: Sequence[str], style: Style) -> str:
    """A date and a time; turned: the time first."""
    return f"{parts[1]}, {parts[0]}" if style.turned else book.date_time(parts[0], parts[1])


def _dated_place(book: Phrasebook, parts: Sequence[str], style: Style) -> str:
    return _separated(book, parts[0], _dated(book, parts[1:], style), style)


def _dashed(_: Phrasebook, parts: Sequence[str], style: Style) -> str:
    """``A – B – C``."""
    return " – ".join(reversed(parts) if style.turned else parts)


def _comma(_: Phrasebook, parts: Sequence[str], style: Style) -> str:
    """``A, B``; turned ``B (A)``."""
    return f"{parts[1]} ({parts[0]})" if style.turned else f"{parts[0]}, {parts[1]}"


@cache
def phrase_kinds() -> tuple[Kind, ...]:
    """All kinds; each has tens of thousands of phrases, so that equal shares of all kinds fit in every split."""
    inventory = shared_inventory()
    territory, language = _named("territories", "territory"), _named("languages", "language")
    script, currency = _named("scripts", "script"), _named("currencies", "currency")
    quantity = _product("quantity", inventory.units, _NUMBERS, say=Phrasebook.quantity)
    amount = _product("amount", inventory.currencies, _COUNTS, say=Phrasebook.amount)
    percent = _product("percent", range(1, 100), say=Phrasebook.percent)
    weekday = _product("weekday", range(7), say=Phrasebook.weekday)
    month = _product("month", range(1, 13), say=Phrasebook.month)
    time = _product("time", range(0, 1440, _MINUTES), say=Phrasebook.time)
    relative = _product("relative", _RELATIVE_UNITS, _RELATIVE_NUMBERS, say=Phrasebook.relative)
    years = range(_FIRST_YEAR, _FIRST_YEAR + _YEARS)
    quarter = _product("quarter", years, range(1, 5), say=Phrasebook.quarter)
    date, full_date = _date(weekday=False), _date(weekday=True)
    hours = _product("hours", range(360, 1080, _MINUTES), range(15, 361, 15), say=_hours)
    days = _product("days", years, range(1, 13), range(1, 20), range(1, 9), say=_days)
    months = _product("months", years, tuple(itertools.combinations(range(1, 13), 2)), say=_months)
    return (
        Kind("quantities", (quantity, quantity), _listed()),
        Kind("territories", (territory, territory, territory), _listed()),
        Kind("territory choice", (territory, territory, quantity), _list_headed("or")),
        Kind("languages", (language, language, language), _listed()),
        Kind("language choice", (language, language, territory), _list_headed("or")),
        Kind("language of territory", (language, territory), _in_brackets),
        Kind("language in script", (language, script, territory), _in_brackets),
        Kind("scripts", (language, script, script), _list_of_rest),
        Kind("currencies", (currency, currency, currency), _listed()),
        Kind("currency of territories", (currency, territory, territory), _list_of_rest),
        Kind("amount in territory", (territory, amount), _headed),
        Kind("amounts", (amount, quantity), _headed),
        Kind("quantity in territories", (territory, territory, quantity), _list_headed()),
        Kind("percentage", (percent, language, territory), _dashed),
        Kind("date", (date, territory), _comma),
        Kind("full date", (full_date, quantity), _headed),
        Kind("date and time", (full_date, time), _dated),
        Kind("event", (territory, date, time), _dated_place),
        Kind("hours", (weekday, hours), _comma),
        Kind("weekdays", (weekday, weekday, time), _list_headed()),
        Kind("days", (days, territory), _headed),
        Kind("months", (months, language), _headed),
        Kind("month list", (territory, month, month), _list_of_rest),
        Kind("quarter", (quarter, amount), _headed),
        Kind("relative quantity", (relative, quantity), _headed),
        Kind("relative place", (territory, relative), _comma),
        Kind("relative languages", (relative, language, language), _list_of_rest),
    )
