import pickle
import struct
import sys

import pytest

from optical_scale.corpora.language_id import LanguageId
from optical_scale.corpora.scripts import swapped_scripts
from optical_scale.errors import CorpusError
from optical_scale.records import TextPair

ENGLISH, SWAHILI, GERMAN = "a man is walking his dog", "mwanamume anatembea na mbwa wake", "Ein Mann geht mit dem Hund"


def pair(source, target, language="sw"):
    return TextPair("k", language, source, target)


@pytest.fixture(scope="module")
def rule():
    pytest.importorskip("py3langid")
    return LanguageId(None, 0.02, 10, {})


@pytest.mark.parametrize(
    ("source", "target", "language", "reason"),
    [
        (ENGLISH, SWAHILI, "sw", None),
        (ENGLISH, SWAHILI, "swh", None),
        (SWAHILI, ENGLISH, "sw", "swapped"),
        (ENGLISH, GERMAN, "sw", "language"),
        (ENGLISH, ENGLISH, "sw", "language"),
        (GERMAN, SWAHILI, "sw", "language_en"),
        (GERMAN, GERMAN, "sw", "language_en"),
        (SWAHILI, SWAHILI, "sw", "language_en"),
        ("OK", "Danke!", "sw", None),
        ("2019", "12345 67890 12345 67890", "sw", None),
        (ENGLISH, GERMAN, "brx", None),
        (GERMAN, GERMAN, "brx", "language_en"),
        (ENGLISH, "the dog of a man walks", "en", None),
        (ENGLISH, GERMAN + "\n" + GERMAN, "de-AT", None),
    ],
)
def test_reasons(rule, source, target, language, reason):
    assert rule(pair(source, target, language)) == reason


def test_what_the_model_knows(rule):
    assert all(map(rule.knows, ["en", "sw", "pt-BR", "zh-Hant", "tl", "fil"]))
    assert not any(map(rule.knows, ["brx", "ti", "qqq"]))


def test_labels_given_replace_those_of_the_tag():
    pytest.importorskip("py3langid")
    rule = LanguageId(None, 0.02, 10, {"brx": ["de"], "sw": []})
    assert rule(pair(ENGLISH, GERMAN, "brx")) is None
    assert rule(pair(ENGLISH, SWAHILI, "brx")) == "language"
    assert rule(pair(ENGLISH, GERMAN, "sw")) is None
    assert not rule.knows("sw")
    with pytest.raises(CorpusError, match=r"languages\.sw: the model has no label swh_Latn; it has .*, sw"):
        LanguageId(None, 0.02, 10, {"sw": ["swh_Latn"]})


def test_a_pickled_rule_decides_the_same(rule):
    again = pickle.loads(pickle.dumps(rule))
    assert again(pair(SWAHILI, ENGLISH)) == "swapped"
    assert len(pickle.dumps(rule)) < 1_000, "the model stays where it is"


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    with pytest.raises(CorpusError, match=r'optical-scale\[langid\]"'):
        LanguageId(None, 0.02, 10, {})


def test_a_file_that_is_no_model(tmp_path):
    pytest.importorskip("fasttext")
    (tmp_path / "lid.ftz").write_bytes(b"no model" * 99)
    for name in ("lid.ftz", "missing.bin"):
        with pytest.raises(CorpusError, match=rf"{name}: no language identification model .* lid\.176\.ftz"):
            LanguageId(tmp_path / name, 0.1, 10, {})


def write_fasttext(path, words):
    """The smallest classifier in fastText's format (version 12): each word votes for its label."""
    labels = sorted(set(words.values()))
    entries = [("</s>", 0), *((word, 0) for word in words), *(("__label__" + label, 1) for label in labels)]
    rows = [[0.0] * len(labels), *([9.0 * (label == own) for label in labels] for own in words.values())]
    output = [[float(row == column) for column in labels] for row in labels]

    def matrix(values):
        flat = [value for row in values for value in row]
        return struct.pack(f"<?qq{len(flat)}f", False, len(values), len(values[0]), *flat)

    with path.open("wb") as file:
        file.write(struct.pack("<ii12id", 793712314, 12, len(labels), 5, 1, 1, 5, 1, 3, 3, 0, 0, 0, 100, 0.0))
        file.write(struct.pack("<iiiqq", len(entries), 1 + len(words), len(labels), 99, -1))
        for text, kind in entries:
            file.write(text.encode() + b"\0" + struct.pack("<qb", 1, kind))
        file.write(matrix(rows) + matrix(output))


def test_a_fasttext_model_of_the_user(tmp_path):
    pytest.importorskip("fasttext")
    words = dict.fromkeys(ENGLISH.split(), "eng_Latn") | dict.fromkeys(SWAHILI.split(), "swh_Latn")
    write_fasttext(tmp_path / "lid.bin", words | dict.fromkeys(["пас"], "srp_Cyrl"))
    rule = LanguageId(tmp_path / "lid.bin", 0.5, 3, {})
    assert rule(pair(ENGLISH + "\n" + ENGLISH, SWAHILI)) is None
    assert rule(pair(SWAHILI, ENGLISH)) == "swapped"
    assert rule(pair(ENGLISH, "пас", "sr")) is None
    assert not rule.knows("sr-Latn")
    assert not rule.knows("de")


@pytest.mark.parametrize(
    ("source", "target", "language", "reason"),
    [
        ("यह एक कुत्ता है", "this is a dog", "hi", "swapped"),
        ("this is a dog", "यह एक कुत्ता है", "hi", None),
        ("यह एक कुत्ता है", "कुत्ता", "hi", None),
        ("naïve café", "kahawa", "sw", None),
        ("2019 — …", "kahawa", "sw", None),
        ("यह एक कुत्ता है", "this is a dog", "en", None),
    ],
)
def test_swapped_scripts(source, target, language, reason):
    assert swapped_scripts(pair(source, target, language)) == reason
