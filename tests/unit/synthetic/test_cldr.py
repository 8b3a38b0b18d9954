"""Every admitted component is said in the language's own words."""

import datetime
import re

import pytest

from optical_scale.synthetic.cldr import LANGUAGES, LOW_RESOURCE, Phrasebook, clean, is_untranslated, shared_inventory

DAY = datetime.date(2025, 3, 3)


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        ("en", "Monday, March 3, 2025"),
        ("de", "Montag, 3. März 2025"),
        ("fr", "lundi 3 mars 2025"),
        ("es", "lunes, 3 de marzo de 2025"),
        ("cs", "pondělí 3. března 2025"),
        ("sw", "Jumatatu, 3 Machi 2025"),
        ("so", "Isniin, Maarso 3, 2025"),
        ("mr", "सोमवार, ३ मार्च, २०२५"),
        ("fil", "Lunes, Marso 3, 2025"),
    ],
)
def test_a_date_in_every_language(language, expected):
    assert Phrasebook(language).date(DAY, weekday=True) == expected


@pytest.mark.parametrize(
    ("language", "expected"),
    [("de", "2,5 Meter"), ("cs", "2,5 metru"), ("sw", "mita 2.5"), ("so", "2.5 mitir"), ("mr", "२.५ मीटर")],
)
def test_units_are_words_even_where_cldr_has_only_short_forms(language, expected):
    # Swahili has no long form of the meter: Babel alone would write "2.5 length-meter".
    assert Phrasebook(language).quantity("length-meter", 2.5) == expected


def test_no_component_is_a_code_or_a_bare_symbol():
    inventory = shared_inventory()
    for language in ("en", *LANGUAGES):
        book = Phrasebook(language)
        said = [book.quantity(unit, 3) for unit in inventory.units]
        said += [book.amount(code, 12) for code in inventory.currencies]
        said += [book.name("scripts", code) for code in inventory.scripts]
        assert not [text for text in said if re.search(r"[{}¤+]", text)]
        codes = {*inventory.units, *inventory.currencies, *inventory.scripts}
        assert not [text for text in said if set(text.split()) & codes]
        assert not [text for text in said if re.search(r"[\u00a0\u202f\u2009\u200e\u200f\u2068\u2069]|  ", text)]


def test_low_resource_names_are_translated_or_international():
    inventory = shared_inventory()
    for kind in ("territories", "languages", "scripts", "currencies"):
        codes = getattr(inventory, kind)
        assert len(codes) >= 20, kind
        for language in LOW_RESOURCE:
            same = [c for c in codes if Phrasebook(language).name(kind, c) == Phrasebook("en").name(kind, c)]
            assert len(same) < len(codes), (kind, language)
    # CLDR's Filipino calls Germany and Arabic by their English names, which no other language does.
    assert "DE" not in inventory.territories
    assert "ar" not in inventory.languages
    assert {"KE", "SO", "TZ"} <= set(inventory.territories)
    assert {"sw", "so", "mr", "fil"} <= set(inventory.languages)


def test_untranslated_is_a_repetition_that_no_other_language_shares():
    assert is_untranslated("Germany", "Germany", ["Deutschland", "Allemagne", "Alemania", "Německo"])
    assert not is_untranslated("Kenya", "Kenya", ["Kenia", "Kenya", "Kenia", "Keňa"])
    assert not is_untranslated("Swahili", "Swahili", ["Suaheli", "swahili"])
    assert not is_untranslated("Germany", "Ujerumani", [])


def test_clean_makes_one_line_of_plain_spaces():
    assert clean("3:05\u202fPM \u2068x\u2069\u00a0y\n") == "3:05 PM x y"


def test_english_has_a_short_form_of_everything():
    book = Phrasebook("en")
    assert book.date(DAY, weekday=True, short=True) == "Mon, Mar 3, 2025"
    assert book.quantity("duration-hour", 3, short=True) == "3 hr"
    assert book.amount("KES", 12) == "12 Kenyan shillings"
    assert book.amount("KES", 12, short=True) == "KES 12"
    assert (book.time(905), book.time(905, short=True)) == ("3:05 PM", "15:05")
    assert (book.relative("week", -3), book.relative("week", 3, short=True)) == ("3 weeks ago", "in 3 wk.")
    assert (book.percent(25), book.percent(25, short=True)) == ("25%", "25 percent")
    assert book.month_range(2025, 3, 6, short=True) == "Mar – Jun 2025"
    assert book.day_range(DAY, 3) == "Mar 3 – 6, 2025"
