"""Captions of drawn scenes in nine languages: a small grammar with correct agreement.

A scene holds two groups of objects, each of one noun, colour, size and number (one to three). A language says a group
as a noun phrase in the grammatical case that the relation asks for, and a relation as a template of two phrases.

Nouns are everyday things (ball, box, star, house, book, fish) and colours the four commonest, because their forms are
certain in every language; numbers stop at three, because Czech counts from five in another case.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

NOUNS = ("ball", "box", "star", "house", "book", "fish")
COLOURS = ("red", "blue", "green", "yellow")
SIZES = ("small", "large")
COUNTS = (1, 2, 3)
RELATIONS = ("above", "below", "left", "right")
INVERSE = {"above": "below", "below": "above", "left": "right", "right": "left"}


@dataclass(frozen=True, slots=True)
class Group:
    """One to three equal objects."""

    noun: str
    colour: str
    size: str
    count: int


@dataclass(frozen=True, slots=True)
class Grammar:
    """One language.

    Attributes:
        phrase: the noun phrase of a group in a case; ``subject`` is what stands first in a caption.
        templates: per relation the text around ``{first}`` and ``{second}``, and the case of the second phrase.
    """

    phrase: Callable[[Group, str], str]
    templates: Mapping[str, tuple[str, str]]

    def caption(
        self, first: Group, relation: str, second: Group, mark: Callable[[int, str], str] = lambda _, phrase: phrase
    ) -> str:
        """``first`` is ``relation`` of ``second``; ``mark(0 or 1, phrase)`` may wrap the two phrases."""
        template, case = self.templates[relation]
        second_phrase = self.phrase(second, case)
        # French elides "de" before a vowel: "d'un", but "de deux".
        de = "d'" if second_phrase.startswith("un") else "de "
        return template.format(first=mark(0, self.phrase(first, "subject")), second=mark(1, second_phrase), de=de)


def _between(words: Mapping[str, str], case: str = "subject") -> dict[str, tuple[str, str]]:
    return {relation: (f"{{first}} {word} {{second}}", case) for relation, word in words.items()}


_EN_PLURAL = {"box": "boxes", "fish": "fish"}


def _english(group: Group, case: str) -> str:
    noun = group.noun if group.count == 1 else _EN_PLURAL.get(group.noun, f"{group.noun}s")
    return f"{('a', 'two', 'three')[group.count - 1]} {group.size} {group.colour} {noun}"


# German: gender, singular, plural, dative plural.
_DE_NOUNS = {
    "ball": ("m", "Ball", "Bälle", "Bällen"),
    "box": ("f", "Kiste", "Kisten", "Kisten"),
    "star": ("m", "Stern", "Sterne", "Sternen"),
    "house": ("n", "Haus", "Häuser", "Häusern"),
    "book": ("n", "Buch", "Bücher", "Büchern"),
    "fish": ("m", "Fisch", "Fische", "Fischen"),
}
_DE_ADJECTIVES = {"red": "rot", "blue": "blau", "green": "grün", "yellow": "gelb", "small": "klein", "large": "groß"}
# Mixed declension after "ein", strong after a bare numeral: article and adjective ending.
_DE_ENDINGS = {
    ("m", "subject"): ("ein", "er"),
    ("f", "subject"): ("eine", "e"),
    ("n", "subject"): ("ein", "es"),
    ("m", "dative"): ("einem", "en"),
    ("f", "dative"): ("einer", "en"),
    ("n", "dative"): ("einem", "en"),
}


def _german(group: Group, case: str) -> str:
    gender, singular, plural, dative_plural = _DE_NOUNS[group.noun]
    if group.count == 1:
        article, ending = _DE_ENDINGS[gender, case]
        noun = singular
    else:
        article = ("zwei", "drei")[group.count - 2]
        ending, noun = ("e", plural) if case == "subject" else ("en", dative_plural)
    size, colour = _DE_ADJECTIVES[group.size], _DE_ADJECTIVES[group.colour]
    return f"{article} {size}{ending} {colour}{ending} {noun}"


# French: gender, singular, plural; the size stands before the noun, the colour after it.
_FR_NOUNS = {
    "ball": ("f", "balle", "balles"),
    "box": ("f", "boîte", "boîtes"),
    "star": ("f", "étoile", "étoiles"),
    "house": ("f", "maison", "maisons"),
    "book": ("m", "livre", "livres"),
    "fish": ("m", "poisson", "poissons"),
}
_FR_ADJECTIVES = {
    "red": ("rouge", "rouge"),
    "blue": ("bleu", "bleue"),
    "green": ("vert", "verte"),
    "yellow": ("jaune", "jaune"),
    "small": ("petit", "petite"),
    "large": ("grand", "grande"),
}


def _french(group: Group, case: str) -> str:
    gender, singular, plural = _FR_NOUNS[group.noun]
    feminine, many = gender == "f", group.count > 1
    number = ("une" if feminine else "un", "deux", "trois")[group.count - 1]
    size, colour = (_FR_ADJECTIVES[word][feminine] + "s" * many for word in (group.size, group.colour))
    return f"{number} {size} {plural if many else singular} {colour}"


# Spanish: gender, singular, plural; noun, colour, size.
_ES_NOUNS = {
    "ball": ("f", "pelota", "pelotas"),
    "box": ("f", "caja", "cajas"),
    "star": ("f", "estrella", "estrellas"),
    "house": ("f", "casa", "casas"),
    "book": ("m", "libro", "libros"),
    "fish": ("m", "pez", "peces"),
}
# Masculine and feminine singular, plural ending.
_ES_ADJECTIVES = {
    "red": ("rojo", "roja", "s"),
    "blue": ("azul", "azul", "es"),
    "green": ("verde", "verde", "s"),
    "yellow": ("amarillo", "amarilla", "s"),
    "small": ("pequeño", "pequeña", "s"),
    "large": ("grande", "grande", "s"),
}


def _spanish(group: Group, case: str) -> str:
    gender, singular, plural = _ES_NOUNS[group.noun]
    number = ("una" if gender == "f" else "un", "dos", "tres")[group.count - 1]
    words = []
    for name in (group.colour, group.size):
        masculine, feminine, ending = _ES_ADJECTIVES[name]
        words.append((feminine if gender == "f" else masculine) + (ending if group.count > 1 else ""))
    return f"{number} {plural if group.count > 1 else singular} {words[0]} {words[1]}"


# Czech has no articles. Gender (m is masculine inanimate), then per case the singular and the plural.
_CS_NOUNS = {
    "ball": ("m", {"subject": ("míč", "míče"), "genitive": ("míče", "míčů"), "instrumental": ("míčem", "míči")}),
    "box": (
        "f",
        {
            "subject": ("krabice", "krabice"),
            "genitive": ("krabice", "krabic"),
            "instrumental": ("krabicí", "krabicemi"),
        },
    ),
    "star": (
        "f",
        {
            "subject": ("hvězda", "hvězdy"),
            "genitive": ("hvězdy", "hvězd"),
            "instrumental": ("hvězdou", "hvězdami"),
        },
    ),
    "house": ("m", {"subject": ("dům", "domy"), "genitive": ("domu", "domů"), "instrumental": ("domem", "domy")}),
    "book": (
        "f",
        {"subject": ("kniha", "knihy"), "genitive": ("knihy", "knih"), "instrumental": ("knihou", "knihami")},
    ),
    "fish": ("f", {"subject": ("ryba", "ryby"), "genitive": ("ryby", "ryb"), "instrumental": ("rybou", "rybami")}),
}
_CS_ADJECTIVES = {"red": "červen", "blue": "modr", "green": "zelen", "yellow": "žlut", "small": "mal", "large": "velk"}
_CS_ENDINGS = {
    ("m", "subject"): ("ý", "é"),
    ("f", "subject"): ("á", "é"),
    ("m", "genitive"): ("ého", "ých"),
    ("f", "genitive"): ("é", "ých"),
    ("m", "instrumental"): ("ým", "ými"),
    ("f", "instrumental"): ("ou", "ými"),
}
_CS_NUMBERS = {
    ("m", "subject"): ("dva", "tři"),
    ("f", "subject"): ("dvě", "tři"),
    ("m", "genitive"): ("dvou", "tří"),
    ("f", "genitive"): ("dvou", "tří"),
    ("m", "instrumental"): ("dvěma", "třemi"),
    ("f", "instrumental"): ("dvěma", "třemi"),
}


def _czech(group: Group, case: str) -> str:
    gender, forms = _CS_NOUNS[group.noun]
    many = group.count > 1
    ending = _CS_ENDINGS[gender, case][many]
    words = [_CS_ADJECTIVES[group.size] + ending, _CS_ADJECTIVES[group.colour] + ending, forms[case][many]]
    return " ".join([_CS_NUMBERS[gender, case][group.count - 2], *words] if many else words)


# Swahili nouns belong to classes and everything agrees: noun class of singular and of plural, and the two forms.
# Fish is in class 9/10 by form but, being alive, takes the concords of people (1/2).
_SW_NOUNS = {
    "ball": (3, 4, "mpira", "mipira"),
    "box": (5, 6, "sanduku", "masanduku"),
    "star": (9, 10, "nyota", "nyota"),
    "house": (9, 10, "nyumba", "nyumba"),
    "book": (7, 8, "kitabu", "vitabu"),
    "fish": (1, 2, "samaki", "samaki"),
}
# Per class: small, large, red, the connective ("of", which turns the nouns blue, green, yellow into adjectives) and,
# in the plural, two and three. A bare noun is also "a ..."; Swahili has no article.
_SW_CLASSES = {
    1: ("mdogo", "mkubwa", "mwekundu", "wa", ()),
    2: ("wadogo", "wakubwa", "wekundu", "wa", ("wawili", "watatu")),
    3: ("mdogo", "mkubwa", "mwekundu", "wa", ()),
    4: ("midogo", "mikubwa", "miekundu", "ya", ("miwili", "mitatu")),
    5: ("dogo", "kubwa", "jekundu", "la", ()),
    6: ("madogo", "makubwa", "mekundu", "ya", ("mawili", "matatu")),
    7: ("kidogo", "kikubwa", "chekundu", "cha", ()),
    8: ("vidogo", "vikubwa", "vyekundu", "vya", ("viwili", "vitatu")),
    9: ("ndogo", "kubwa", "nyekundu", "ya", ()),
    10: ("ndogo", "kubwa", "nyekundu", "za", ("mbili", "tatu")),
}
_SW_COLOURS = {"blue": "bluu", "green": "kijani", "yellow": "manjano"}


def _swahili(group: Group, case: str) -> str:
    singular_class, plural_class, singular, plural = _SW_NOUNS[group.noun]
    many = group.count > 1
    small, large, red, connective, numbers = _SW_CLASSES[plural_class if many else singular_class]
    words = [plural if many else singular]
    if many:
        words.append(numbers[group.count - 2])
    words.append(small if group.size == "small" else large)
    words.append(red if group.colour == "red" else f"{connective} {_SW_COLOURS[group.colour]}")
    return " ".join(words)


# Somali counts masculine nouns in the singular form and feminine ones with -ood. After a numeral, adjectives follow
# with "oo", the size in its plural (reduplicated) form; "casaan ah" ("being red") is the same for every noun.
_SO_NOUNS = {
    "ball": ("kubad", "kubadood"),
    "box": ("sanduuq", "sanduuq"),
    "star": ("xiddig", "xiddigood"),
    "house": ("guri", "guri"),
    "book": ("buug", "buug"),
    "fish": ("kalluun", "kalluun"),
}
_SO_SIZES = {"small": ("yar", "yaryar"), "large": ("weyn", "waaweyn")}
_SO_COLOURS = {"red": "casaan", "blue": "buluug", "green": "cagaar", "yellow": "huruud"}


def _somali(group: Group, case: str) -> str:
    one, counted = _SO_NOUNS[group.noun]
    size, plural_size = _SO_SIZES[group.size]
    colour = f"oo {_SO_COLOURS[group.colour]} ah"
    if group.count == 1:
        return f"{one} {size} {colour}"
    return f"{('laba', 'saddex')[group.count - 2]} {counted} oo {plural_size} {colour}"


# Marathi: gender, direct singular and plural, oblique singular and plural (before the postposition -च्या).
_MR_NOUNS = {
    "ball": ("m", "चेंडू", "चेंडू", "चेंडू", "चेंडूं"),
    "box": ("f", "पेटी", "पेट्या", "पेटी", "पेट्यां"),
    "star": ("m", "तारा", "तारे", "ताऱ्या", "ताऱ्यां"),
    "house": ("n", "घर", "घरे", "घरा", "घरां"),
    "book": ("n", "पुस्तक", "पुस्तके", "पुस्तका", "पुस्तकां"),
    "fish": ("m", "मासा", "मासे", "माशा", "माशां"),
}
# Adjectives in -ā agree in the direct case and end in -yā in the oblique; the others never change.
_MR_ADJECTIVES = {"red": "लाल", "small": "लहान", "blue": "निळ*", "green": "हिरव*", "yellow": "पिवळ*", "large": "मोठ*"}
_MR_ENDINGS = {"m": ("ा", "े"), "f": ("ी", "्या"), "n": ("े", "ी")}
_MR_NUMBERS = {"subject": ("एक", "दोन", "तीन"), "oblique": ("एका", "दोन", "तीन")}


def _marathi(group: Group, case: str) -> str:
    gender, singular, plural, oblique_singular, oblique_plural = _MR_NOUNS[group.noun]
    many = group.count > 1
    if case == "subject":
        ending, noun = _MR_ENDINGS[gender][many], plural if many else singular
    else:
        ending, noun = "्या", f"{oblique_plural if many else oblique_singular}च्या"
    size, colour = (_MR_ADJECTIVES[word].replace("*", ending) for word in (group.size, group.colour))
    return f"{_MR_NUMBERS[case][group.count - 1]} {size} {colour} {noun}"


# Filipino joins numeral, adjectives and noun by a linker: -ng after a vowel, "na" after a consonant.
_FIL_NOUNS = {"ball": "bola", "box": "kahon", "star": "bituin", "house": "bahay", "book": "aklat", "fish": "isda"}
_FIL_WORDS = {
    "red": "pulang",
    "blue": "asul na",
    "green": "berdeng",
    "yellow": "dilaw na",
    "small": "maliit na",
    "large": "malaking",
}


def _filipino(group: Group, case: str) -> str:
    number = ("isang", "dalawang", "tatlong")[group.count - 1]
    return f"{number} {_FIL_WORDS[group.size]} {_FIL_WORDS[group.colour]} {_FIL_NOUNS[group.noun]}"


def _labelled(labels: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Somali names the sides ("on the upper side: A; on the lower side: B"), which needs no possessive agreement."""
    return {
        relation: (f"{label}: {{first}}; {labels[INVERSE[relation]]}: {{second}}", "subject")
        for relation, label in labels.items()
    }


# fmt: off
GRAMMARS: Mapping[str, Grammar] = {
    "en": Grammar(_english, _between({
        "above": "above", "below": "below", "left": "to the left of", "right": "to the right of"})),
    "de": Grammar(_german, _between({
        "above": "über", "below": "unter", "left": "links von", "right": "rechts von"}, "dative")),
    "fr": Grammar(_french, {
        relation: (f"{{first}} {word} {{de}}{{second}}", "subject") for relation, word in (
            ("above", "au-dessus"), ("below", "au-dessous"), ("left", "à gauche"), ("right", "à droite"))}),
    "es": Grammar(_spanish, _between({
        "above": "encima de", "below": "debajo de", "left": "a la izquierda de", "right": "a la derecha de"})),
    "cs": Grammar(_czech, _between({"above": "nad", "below": "pod"}, "instrumental")
        | _between({"left": "vlevo od", "right": "vpravo od"}, "genitive")),
    "sw": Grammar(_swahili, _between({
        "above": "juu ya", "below": "chini ya", "left": "upande wa kushoto wa", "right": "upande wa kulia wa"})),
    "so": Grammar(_somali, _labelled({
        "above": "dhanka sare", "below": "dhanka hoose", "left": "dhanka bidix", "right": "dhanka midig"})),
    "mr": Grammar(_marathi, {
        relation: (f"{{second}} {word} {{first}}", "oblique") for relation, word in (
            ("above", "वर"), ("below", "खाली"), ("left", "डावीकडे"), ("right", "उजवीकडे"))}),
    "fil": Grammar(_filipino, _between({
        "above": "sa itaas ng", "below": "sa ibaba ng", "left": "sa kaliwa ng", "right": "sa kanan ng"})),
}
# fmt: on
