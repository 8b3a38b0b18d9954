"""Hand-written sentences: agreement of gender, number, case, class and linkers."""

import itertools

import pytest

from optical_scale.synthetic.grammar import COLOURS, COUNTS, GRAMMARS, NOUNS, RELATIONS, SIZES, Group

FISH = Group("fish", "red", "small", 2)
HOUSE = Group("house", "blue", "large", 1)
BALLS = Group("ball", "yellow", "large", 3)
BOX = Group("box", "green", "small", 1)
STAR = Group("star", "yellow", "large", 1)
BOOKS = Group("book", "red", "large", 2)

EXPECTED = {
    "en": (
        "two small red fish above a large blue house",
        "three large yellow balls to the left of two large red books",
        "a small green box below a large yellow star",
    ),
    "de": (
        "zwei kleine rote Fische über einem großen blauen Haus",
        "drei große gelbe Bälle links von zwei großen roten Büchern",
        "eine kleine grüne Kiste unter einem großen gelben Stern",
    ),
    "fr": (
        "deux petits poissons rouges au-dessus d'une grande maison bleue",
        "trois grandes balles jaunes à gauche de deux grands livres rouges",
        "une petite boîte verte au-dessous d'une grande étoile jaune",
    ),
    "es": (
        "dos peces rojos pequeños encima de una casa azul grande",
        "tres pelotas amarillas grandes a la izquierda de dos libros rojos grandes",
        "una caja verde pequeña debajo de una estrella amarilla grande",
    ),
    "cs": (
        "dvě malé červené ryby nad velkým modrým domem",
        "tři velké žluté míče vlevo od dvou velkých červených knih",
        "malá zelená krabice pod velkou žlutou hvězdou",
    ),
    "sw": (
        "samaki wawili wadogo wekundu juu ya nyumba kubwa ya bluu",
        "mipira mitatu mikubwa ya manjano upande wa kushoto wa vitabu viwili vikubwa vyekundu",
        "sanduku dogo la kijani chini ya nyota kubwa ya manjano",
    ),
    "so": (
        "dhanka sare: laba kalluun oo yaryar oo casaan ah; dhanka hoose: guri weyn oo buluug ah",
        "dhanka bidix: saddex kubadood oo waaweyn oo huruud ah; dhanka midig: laba buug oo waaweyn oo casaan ah",
        "dhanka hoose: sanduuq yar oo cagaar ah; dhanka sare: xiddig weyn oo huruud ah",
    ),
    "mr": (
        "एका मोठ्या निळ्या घराच्या वर दोन लहान लाल मासे",
        "दोन मोठ्या लाल पुस्तकांच्या डावीकडे तीन मोठे पिवळे चेंडू",
        "एका मोठ्या पिवळ्या ताऱ्याच्या खाली एक लहान हिरवी पेटी",
    ),
    "fil": (
        "dalawang maliit na pulang isda sa itaas ng isang malaking asul na bahay",
        "tatlong malaking dilaw na bola sa kaliwa ng dalawang malaking pulang aklat",
        "isang maliit na berdeng kahon sa ibaba ng isang malaking dilaw na bituin",
    ),
}


@pytest.mark.parametrize("language", GRAMMARS)
def test_three_sentences_by_hand(language):
    caption = GRAMMARS[language].caption
    said = (caption(FISH, "above", HOUSE), caption(BALLS, "left", BOOKS), caption(BOX, "below", STAR))
    assert said == EXPECTED[language]


@pytest.mark.parametrize(
    ("language", "group", "case", "expected"),
    [
        ("de", Group("house", "red", "small", 1), "subject", "ein kleines rotes Haus"),
        ("de", Group("box", "red", "small", 1), "dative", "einer kleinen roten Kiste"),
        ("de", Group("ball", "blue", "large", 3), "dative", "drei großen blauen Bällen"),
        ("fr", Group("book", "green", "large", 1), "subject", "un grand livre vert"),
        ("es", Group("fish", "blue", "large", 3), "subject", "tres peces azules grandes"),
        ("cs", Group("ball", "red", "small", 2), "subject", "dva malé červené míče"),
        ("cs", Group("fish", "green", "large", 3), "instrumental", "třemi velkými zelenými rybami"),
        ("cs", Group("house", "yellow", "small", 1), "genitive", "malého žlutého domu"),
        ("sw", Group("box", "red", "small", 2), "subject", "masanduku mawili madogo mekundu"),
        ("sw", Group("ball", "red", "small", 1), "subject", "mpira mdogo mwekundu"),
        ("sw", Group("book", "blue", "large", 1), "subject", "kitabu kikubwa cha bluu"),
        ("sw", Group("star", "red", "small", 3), "subject", "nyota tatu ndogo nyekundu"),
        ("sw", Group("house", "green", "large", 2), "subject", "nyumba mbili kubwa za kijani"),
        ("so", Group("star", "blue", "small", 2), "subject", "laba xiddigood oo yaryar oo buluug ah"),
        ("mr", Group("box", "blue", "large", 2), "subject", "दोन मोठ्या निळ्या पेट्या"),
        ("mr", Group("book", "yellow", "large", 3), "subject", "तीन मोठी पिवळी पुस्तके"),
        ("mr", Group("star", "green", "large", 2), "subject", "दोन मोठे हिरवे तारे"),
        ("mr", Group("fish", "red", "small", 1), "oblique", "एका लहान लाल माशाच्या"),
        ("fil", Group("ball", "green", "large", 1), "subject", "isang malaking berdeng bola"),
    ],
)
def test_single_phrases_by_hand(language, group, case, expected):
    assert GRAMMARS[language].phrase(group, case) == expected


@pytest.mark.parametrize("language", GRAMMARS)
def test_different_scenes_are_said_differently(language):
    grammar = GRAMMARS[language]
    groups = [Group(*values) for values in itertools.product(NOUNS, COLOURS, SIZES, COUNTS)]
    for case in {"subject", *(case for _, case in grammar.templates.values())}:
        assert len({grammar.phrase(group, case) for group in groups}) == len(groups)
    assert set(grammar.templates) == set(RELATIONS)
    assert len({grammar.caption(FISH, relation, HOUSE) for relation in RELATIONS}) == 4
    assert grammar.caption(FISH, "above", HOUSE) != grammar.caption(HOUSE, "above", FISH)
