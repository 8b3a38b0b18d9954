"""Phrases of the Unicode CLDR (through Babel) in one language, and what the demo's nine languages all know.

CLDR data are inherited: a language without an entry receives the root locale's, and Babel then writes things like
``3 length-meter``. Components are therefore admitted only when every language has data of its own
(:func:`shared_inventory`); :class:`Phrasebook` may assume that.
"""

import datetime
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from optical_scale.errors import CorpusError
from optical_scale.synthetic.languages import HIGH_RESOURCE, LANGUAGES, LOW_RESOURCE

try:
    from babel import Locale, dates, lists, localedata, numbers, units
    from babel.core import get_global
    from babel.languages import get_official_languages
except ModuleNotFoundError as error:
    raise CorpusError(
        "the demo's sentences come from the Unicode CLDR through Babel, which is not installed; "
        "install it with: pip install 'optical-scale[demo]'"
    ) from error

# Familiar units only: a unit that nobody says teaches a model nothing. Those without data everywhere drop out below.
# fmt: off
_UNITS = (
    "duration-century", "duration-decade", "duration-year", "duration-month", "duration-week", "duration-day",
    "duration-hour", "duration-minute", "duration-second", "length-kilometer", "length-meter", "length-centimeter",
    "length-millimeter", "length-mile", "length-foot", "length-inch", "length-yard", "mass-kilogram", "mass-gram",
    "mass-milligram", "mass-tonne", "mass-pound", "mass-ounce", "area-square-kilometer", "area-square-meter",
    "area-square-mile", "area-hectare", "area-acre", "area-square-foot", "volume-liter", "volume-milliliter",
    "volume-gallon", "volume-cubic-meter", "volume-cubic-kilometer", "volume-barrel", "volume-teaspoon",
    "speed-kilometer-per-hour", "speed-meter-per-second", "speed-mile-per-hour", "temperature-celsius",
    "temperature-fahrenheit", "digital-byte", "digital-kilobyte", "digital-megabyte", "digital-gigabyte",
    "digital-terabyte", "power-watt", "power-kilowatt", "power-megawatt", "power-horsepower", "energy-kilowatt-hour",
    "energy-calorie", "energy-joule", "electric-volt", "electric-ampere", "frequency-hertz", "frequency-kilohertz",
    "frequency-megahertz", "angle-degree", "force-newton", "light-lux",
)
# Codes for the unknown, the undetermined and the pseudo, and scripts that are none (emoji, symbols, unwritten).
_NOT_NAMES = {
    "001", "ZZ", "XA", "XB", "QO", "EZ", "UN", "und", "mul", "mis", "zxx", "root", "Zxxx", "Zzzz", "Zyyy", "Zinh",
    "Zsye", "Zsym",
}
# fmt: on
_LONGEST_NAME = 4  # words
_NOT_A_LANGUAGE = "U dhashay "  # "born in": how CLDR's Somali mistranslates a few languages it does not know

NameKind = Literal["territories", "languages", "scripts", "currencies"]


@cache
def _data(language: str) -> Any:
    return localedata.load(language)


def clean(text: str) -> str:
    """One line with plain single spaces: CLDR's no-break and thin spaces are typography, its marks are invisible."""
    spaced = "".join(" " if unicodedata.category(c) == "Zs" else c for c in text if unicodedata.category(c) != "Cf")
    return re.sub(r"\s+", " ", spaced).strip()


def _unit_length(language: str, unit: str) -> str | None:
    """The longest length in which the language has words of its own for a unit, ``None`` without any.

    Root knows only symbols (``m``, ``km/h``); a pattern equal to root's is inherited.
    """
    root = _data("root")["unit_patterns"].get(unit, {})
    own = _data(language)["unit_patterns"].get(unit, {})
    symbols = {str(root[length]["other"]) for length in root if "other" in root[length]}
    for length in ("long", "short"):
        pattern = own.get(length, {}).get("other") if length in own else None
        if pattern is not None and pattern not in symbols:
            return length
    return None


class Phrasebook:
    """Says components of phrases in one language.

    Every method takes ``short``, which asks for the abbreviated form; English has one for all of them, and only
    English paraphrases ask.

    Args:
        language: CLDR locale, for example ``en`` or ``fil``.
    """

    def __init__(self, language: str) -> None:
        self.language = language
        self.locale = Locale.parse(language)
        # Babel writes Western digits unless asked, and for dates cannot be asked; Marathi's default is Devanagari.
        first = ord("०" if self.locale.default_numbering_system == "deva" else "0")
        self._digits = {ord("0") + n: first + n for n in range(10)}
        self._clock = "Hm" if "H" in str(self.locale.time_formats["short"].pattern) else "hm"

    def _say(self, text: str) -> str:
        return clean(text).translate(self._digits)

    def name(self, kind: NameKind, code: str) -> str:
        """Name of a territory, language, script or currency."""
        return self._say(str(getattr(self.locale, kind)[code]))

    def quantity(self, unit: str, number: float, short: bool = False) -> str:
        """``2.5 kilometers``; short: ``2.5 km``."""
        length = "short" if short else _unit_length(self.language, unit)
        return self._say(units.format_unit(number, unit, length=length, locale=self.locale))

    def amount(self, currency: str, number: int, short: bool = False) -> str:
        """``12 Kenyan shillings``; short: ``KES 12``."""
        if short:
            return self._say(f"{currency} {numbers.format_decimal(number, locale=self.locale)}")
        text = numbers.format_currency(
            number, currency, format_type="name", currency_digits=False, decimal_quantization=False, locale=self.locale
        )
        return self._say(text)

    def percent(self, number: int, short: bool = False) -> str:
        """``25%``; short: ``25 percent``, the other way to write it."""
        if short:
            return self.quantity("concentr-percent", number)
        return self._say(numbers.format_percent(number / 100, locale=self.locale))

    def date(self, day: datetime.date, weekday: bool, short: bool = False) -> str:
        """``Monday, March 3, 2025`` or ``March 3, 2025``; short: ``Mon, Mar 3, 2025`` or ``Mar 3, 2025``."""
        if short:
            return self._say(dates.format_skeleton("yMMMEd" if weekday else "yMMMd", day, locale=self.locale))
        return self._say(dates.format_date(day, "full" if weekday else "long", locale=self.locale))

    def time(self, minute: int, short: bool = False) -> str:
        """``3:05 PM`` for minute 905 of a day; short: ``15:05``."""
        moment = datetime.time(*divmod(minute, 60))
        if short:
            return self._say(dates.format_time(moment, "HH:mm", locale=self.locale))
        return self._say(dates.format_time(moment, "short", locale=self.locale))

    def date_time(self, date: str, time: str) -> str:
        """A date and a time, already said, in the language's order."""
        pattern = str(dates.get_datetime_format("long", locale=self.locale)).replace("'", "")
        return self._say(pattern.replace("{1}", date).replace("{0}", time))

    def time_range(self, start: int, end: int, short: bool = False) -> str:
        """``3:05 – 5:30 PM`` for two minutes of one day; short: ``15:05 – 17:30``."""
        first, last = (datetime.datetime(2000, 1, 1, *divmod(minute, 60)) for minute in (start, end))
        return self._say(dates.format_interval(first, last, "Hm" if short else self._clock, locale=self.locale))

    def day_range(self, start: datetime.date, days: int, short: bool = False) -> str:
        """``Mar 3 – 5, 2025`` within one month; short: ``Mar 3, 2025 – Mar 5, 2025``."""
        end = start + datetime.timedelta(days=days)
        if short:
            return f"{self.date(start, False, True)} – {self.date(end, False, True)}"
        return self._say(dates.format_interval(start, end, "yMMMd", locale=self.locale))

    def month_range(self, year: int, first: int, last: int, short: bool = False) -> str:
        """``March – June 2025``; short: ``Mar – Jun 2025``."""
        start, end = datetime.date(year, first, 1), datetime.date(year, last, 1)
        return self._say(dates.format_interval(start, end, "yMMM" if short else "yMMMM", locale=self.locale))

    def month(self, month: int, short: bool = False) -> str:
        """``March``; short: ``Mar``."""
        return self._say(str(self.locale.months["stand-alone"]["abbreviated" if short else "wide"][month]))

    def weekday(self, weekday: int, short: bool = False) -> str:
        """``Monday`` for 0; short: ``Mon``."""
        return self._say(str(self.locale.days["stand-alone"]["abbreviated" if short else "wide"][weekday]))

    def quarter(self, year: int, quarter: int, short: bool = False) -> str:
        """``1st quarter 2025``; short: ``Q1 2025``."""
        day = datetime.date(year, 3 * quarter - 2, 1)
        return self._say(dates.format_skeleton("yQQQ" if short else "yQQQQ", day, locale=self.locale))

    def relative(self, unit: str, number: int, short: bool = False) -> str:
        """``in 3 weeks`` or, for a negative number, ``3 weeks ago``; short: ``in 3 wk.``."""
        field = self.locale._data["date_fields"][f"{unit}-short" if short else unit]
        patterns = field["future" if number > 0 else "past"]
        form = self.locale.plural_form(abs(number))
        return self._say(str(patterns.get(form, patterns["other"])).replace("{0}", str(abs(number))))

    def join(self, items: Iterable[str], style: str = "standard") -> str:
        """``A, B, and C``; style ``or``: ``A, B, or C``; ``standard-short`` (English): ``A, B, & C``."""
        return self._say(lists.format_list(list(items), style=style, locale=self.locale))


@dataclass(frozen=True, slots=True)
class Inventory:
    """Codes of the components that all nine languages can say in words of their own."""

    territories: tuple[str, ...]
    languages: tuple[str, ...]
    scripts: tuple[str, ...]
    currencies: tuple[str, ...]
    units: tuple[str, ...]


def _is_name(name: str) -> bool:
    return "(" not in name and "," not in name and len(name.split()) <= _LONGEST_NAME


def is_untranslated(english: str, target: str, others: Iterable[str]) -> bool:
    """True when ``target`` merely repeats the English.

    Repeating is natural for an international word like *Kenya* or *Afrikaans*: then at least one of ``others``, the
    same component in the languages whose CLDR data are complete, repeats it as well.
    """
    word = clean(english).casefold()
    return clean(target).casefold() == word and word not in {clean(other).casefold() for other in others}


def _shared(codes: Collection[str], say: Callable[[str, str], str | None]) -> tuple[str, ...]:
    """Codes that every language says distinctly, low-resource ones not merely in English; sorted: reproducible."""
    kept = []
    uses = {side: Counter(clean(say(side, code) or "") for code in codes) for side in ("en", *LANGUAGES)}
    for code in sorted(codes):
        said = {language: say(language, code) for language in ("en", *LANGUAGES)}
        texts: Mapping[str, str] = {language: text for language, text in said.items() if text}
        if len(texts) < len(said) or not _is_name(texts["en"]):
            continue
        if texts["so"].startswith(_NOT_A_LANGUAGE) or any(
            uses[language][clean(text)] > 1 for language, text in texts.items()
        ):
            continue  # one name for two things is a mistake in the data too, or a meaning lost
        complete = [texts[language] for language in HIGH_RESOURCE]
        if not any(is_untranslated(texts["en"], texts[language], complete) for language in LOW_RESOURCE):
            kept.append(code)
    return tuple(kept)


@cache
def shared_inventory() -> Inventory:
    """What all languages can say, from CLDR itself; the same for the same version of Babel."""

    def name_in(table: str) -> Callable[[str, str], str | None]:
        return lambda language, code: _data(language)[table].get(code)

    def unit(language: str, code: str) -> str | None:
        length = _unit_length(language, code)
        return None if length is None else str(_data(language)["unit_patterns"][code][length]["other"])

    def codes(table: str) -> set[str]:
        return set(_data("en")[table]) - _NOT_NAMES

    # X marks precious metals and test codes among currencies, except those of real currency unions.
    money = {c for c in codes("currency_names") if c[0] != "X" or c in {"XAF", "XOF", "XCD", "XPF"}}
    # Languages that are official somewhere, if only in a region: the others are long lists of rare names.
    countries = get_global("territory_languages")
    official = {str(c) for country in countries for c in get_official_languages(country, regional=True, de_facto=True)}
    return Inventory(
        territories=_shared(codes("territories"), name_in("territories")),
        languages=_shared(codes("languages") & official, name_in("languages")),
        scripts=_shared(codes("scripts"), name_in("scripts")),
        currencies=_shared(money, name_in("currency_names")),
        units=_shared(_UNITS, unit),
    )
