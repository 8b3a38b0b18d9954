import json

import pytest

from optical_scale.corpora.lists import ListsCorpus
from optical_scale.corpora.reader import LeftOut
from optical_scale.corpora.table import TableCorpus
from optical_scale.errors import CorpusError
from optical_scale.records import TextPair


def corpus(folder, *rows, **fields):
    path = folder / "x.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    names = {"query": "query", "positives": "pos", "negatives": ("neg",)} | fields
    return ListsCorpus("c", path, "en", **names)


def test_every_answer_is_a_pair_with_all_negatives_and_their_scores(tmp_path):
    row = {"query": "q", "pos": ["a", "b"], "neg": ["x", "y"], "pos_scores": [9, 8], "neg_scores": [1, -2.5]}
    found = list(corpus(tmp_path, row, scores=("pos_scores", "neg_scores")))
    assert found == [
        TextPair("c-en-00000001", "en", "a", "q", "c", ("x", "y"), (9.0, 1.0, -2.5)),
        TextPair("c-en-00000001-1", "en", "b", "q", "c", ("x", "y"), (8.0, 1.0, -2.5)),
    ]
    assert corpus(tmp_path, row).count() == 2


def test_passages_with_titles_and_single_texts(tmp_path):
    row = {
        "query": "q",
        "positive_passages": [{"docid": "1", "title": "T", "text": "a"}],
        "negative_1": "x",
        "negative_2": {"text": "y"},
    }
    names = {"positives": "positive_passages", "negatives": ("negative_1", "negative_2")}
    assert list(corpus(tmp_path, row, **names)) == [TextPair("c-en-00000001", "en", "T a", "q", "c", ("x", "y"))]


def test_blank_negatives_and_answers_among_them_are_left_out_with_their_scores_and_counted(tmp_path):
    row = {"query": "q", "pos": ["a", "b"], "neg": ["", "x", "b", "y", None], "s": [1, 2, 3, 4, 5, 6, 7]}
    *left_out, first, _ = corpus(tmp_path, row, scores=("s",))
    assert left_out == [
        LeftOut("c", "en", "part:blank negative", 2),
        LeftOut("c", "en", "part:answer among negatives", 1),
    ]
    assert (first.negatives, first.scores) == (("x", "y"), (1.0, 4.0, 6.0))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"query": "q", "pos": "a"}, r"x.jsonl:1: no field 'neg'; found 'query', 'pos'"),
        ({"query": "q", "pos": "a", "neg": "x", "s": [1]}, "1 scores for 1 positive and 1 negative"),
        ({"query": "q", "pos": "a", "neg": "x", "s": [1, True]}, "holds True; expected finite numbers"),
        ('{"query": "q", "pos": "a", "neg": "x", "s": [1, NaN]}', "holds nan; expected finite numbers"),
        ({"query": "q", "pos": {"title": "a"}, "neg": "x", "s": [1, 2]}, "a passage with 'title'; expected `text`"),
        ({"query": 3, "pos": "a", "neg": "x", "s": [1, 2]}, "field 'query' is int"),
        ("[]", "list; expected a JSON object"),
    ],
)
def test_malformed_lines_are_refused(tmp_path, row, message):
    with pytest.raises(CorpusError, match=message):
        list(corpus(tmp_path, row, scores=("s",)))


def test_an_empty_file_is_refused_and_an_empty_line_is_a_blank_pair(tmp_path):
    with pytest.raises(CorpusError, match="the file is empty"):
        corpus(tmp_path).count()
    row = {"query": "q", "pos": [], "neg": []}
    assert [(pair.source, pair.target) for pair in corpus(tmp_path, row, "", row)] == [("", "q"), ("", ""), ("", "q")]


def test_triples_of_texts_are_a_table(tmp_path):
    path = tmp_path / "triples.tsv"
    path.write_text("q\ta\tx\nq\ta\ta\nr\tb\t\n", encoding="utf-8")
    columns = ("query", "answer", "negative")
    triples = TableCorpus("c", path, "en", "answer", "query", columns, negatives=("negative",))
    found = list(triples)
    assert [(p.source, p.target, p.negatives) for p in found if isinstance(p, TextPair)] == [
        ("a", "q", ("x",)),
        ("a", "q", ()),
        ("b", "r", ()),
    ]
    assert [item.reason for item in found if isinstance(item, LeftOut)] == [
        "part:answer among negatives",
        "part:blank negative",
    ]
    with pytest.raises(CorpusError, match="0 columns named 'other'"):
        TableCorpus("c", path, "en", "answer", "query", columns, negatives=("other",))
