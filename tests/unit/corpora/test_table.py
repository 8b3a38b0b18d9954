import pytest

from optical_scale.corpora.table import TableCorpus
from optical_scale.errors import CorpusError


def corpus(folder, text, **changes):
    (folder / "x.tsv").write_text(text, encoding="utf-8", newline="")
    values = {"name": "t", "path": folder / "x.tsv", "language": "sw", "source": "en", "target": "sw"}
    return TableCorpus(**values | changes)


def texts(pairs):
    return [(int(pair.key[-8:]), pair.source, pair.target) for pair in pairs]


def test_columns_are_found_by_name_and_keys_are_lines(tmp_path):
    pairs = corpus(tmp_path, "sw\tid\ten\nmoja\t1\tone\n\ntatu\t3\tthree\n")
    assert pairs.count() == 3
    assert texts(pairs) == [(2, "one", "moja"), (3, "", ""), (4, "three", "tatu")]


def test_a_file_without_header_as_of_tatoeba_and_manythings(tmp_path):
    pairs = corpus(tmp_path, '\ufeffHi.\tHabari.\tCC-BY\n"Go.\tNenda.\tCC-BY', columns=("en", "sw", "credit"))
    assert pairs.count() == 2
    assert texts(pairs) == [(1, "Hi.", "Habari."), (2, '"Go.', "Nenda.")]


def test_quoted_fields_hold_delimiters_quotes_and_line_ends(tmp_path):
    text = 'en,sw\n"one, or ""1""",moja\n"two\nlines\u2028more",mbili\nthree,tatu\n'
    pairs = corpus(tmp_path, text, delimiter=",", quoted=True)
    assert pairs.count() == 3
    assert texts(pairs) == [(2, 'one, or "1"', "moja"), (3, "two\nlines\u2028more", "mbili"), (5, "three", "tatu")]


@pytest.mark.parametrize(
    ("text", "changes", "message"),
    [
        ("", {}, r"x\.tsv: the file is empty"),
        ("en\tde\na\tb\n", {}, r"x\.tsv:1: the header has 0 columns named 'sw'; it names en, de"),
        ("en\tsw\ten\n", {}, "has 2 columns named 'en'"),
        ("en\tsw\na\tb\na\n", {}, r"x\.tsv:3: 1 fields, expected 2 \(en, sw\)"),
        ('en,sw\na,b\n"c\nd,e\n', {"delimiter": ",", "quoted": True}, r"x\.tsv:3: the row that starts here"),
        ('en,sw\na,b\n"c"d,e\n', {"delimiter": ",", "quoted": True}, r"x\.tsv:3: .*expected after"),
    ],
)
def test_mistakes_name_file_and_line(tmp_path, text, changes, message):
    with pytest.raises(CorpusError, match=message):
        list(corpus(tmp_path, text, **changes))


def test_columns_that_lack_a_side_are_refused_at_once(tmp_path):
    with pytest.raises(CorpusError, match="0 columns named 'sw'"):
        corpus(tmp_path, "", columns=("en", "de"))
