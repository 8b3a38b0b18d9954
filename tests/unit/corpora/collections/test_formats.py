import pytest

from optical_scale.corpora.collections import tables, trec
from optical_scale.corpora.collections.parts import Document, Judgement, Topic
from optical_scale.errors import CorpusError


def written(tmp_path, text):
    path = tmp_path / "file"
    path.write_text(text, encoding="utf-8", newline="\n")
    return path


def test_tables_of_ms_marco_and_json_lines_of_beir(tmp_path):
    assert list(tables.tsv_documents(written(tmp_path, "0\tone two\n1\tTitle\ttext\n"))) == [
        Document("0", "one two"),
        Document("1", "Title text"),
    ]
    assert list(tables.tsv_topics(written(tmp_path, "7\twas\n"))) == [Topic("7", "was")]
    lines = '{"_id": "a", "title": "T", "text": "x"}\n\n{"_id": "b", "text": "y", "metadata": {}}\n'
    assert list(tables.jsonl_documents(written(tmp_path, lines))) == [Document("a", "T x"), Document("b", "y")]
    assert list(tables.jsonl_topics(written(tmp_path, '{"_id": 3, "text": "q"}'))) == [Topic("3", "q")]


def test_judgements_of_trec_and_of_beir(tmp_path):
    expected = [Judgement("q1", "d1", 2), Judgement("q1", "d2", -1)]
    assert list(tables.judgements(written(tmp_path, "q1 0 d1 2\nq1\tQ0\td2\t-1\n"))) == expected
    assert list(tables.judgements(written(tmp_path, "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t-1\n"))) == expected


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (tables.judgements, "q1 0 d1 1\nq1 d2 1\n", ":2: .*on every line"),
        (tables.judgements, "q1 0 d1 yes\n", ":1: .*the grade an integer"),
        (tables.tsv_documents, "0\ta\nalone\n", ":2: one column"),
        (tables.tsv_documents, "a b\ttext\n", "holds white space"),
        (tables.jsonl_documents, '{"_id": "a"}\n', ":1: .*as in BEIR"),
        (tables.jsonl_topics, "{", ":1: not JSON"),
        (trec.documents, "<DOC>\n<DOCNO>1</DOCNO>\n", ":1: .*does not end"),
        (trec.documents, "x\n<DOC><TEXT>a</TEXT></DOC>\n", ":2: the id '' is empty"),
        (trec.topics(["desc"]), "<top><num>1<title>t</top>", "no <desc>; it has num, title"),
    ],
)
def test_mistakes_name_the_place(tmp_path, read, text, message):
    with pytest.raises(CorpusError, match=message):
        list(read(written(tmp_path, text)))


def test_documents_of_trec(tmp_path):
    text = (
        "<DOC>\n<DOCNO> LA-1 </DOCNO>\n<HEAD>\n<P>Head &amp; line</P></HEAD>\n<TEXT>a &lt; b\nc</TEXT>\n</DOC>\n"
        '<doc id="X2"><title>T</title><p>x</p></doc><DOC><DOCID>3</DOCID>y</DOC>\n'
    )
    assert list(trec.documents(written(tmp_path, text))) == [
        Document("LA-1", "Head & line a < b c"),
        Document("X2", "T x"),
        Document("3", "y"),
    ]


def test_topics_of_trec_with_open_tags_of_clef_and_of_newer_tracks(tmp_path):
    old = "<top>\n<num> Number: 301\n<title> Topic: oil spills\n<desc> Description:\nWhich\nones?\n</top>\n"
    assert list(trec.topics(["title"])(written(tmp_path, old))) == [Topic("301", "oil spills")]
    assert list(trec.topics(["title", "desc"])(written(tmp_path, old))) == [Topic("301", "oil spills Which ones?")]
    clef = '<top lang="de"><num>C041</num><DE-title>Pestizide</DE-title><DE-desc>Berichte.</DE-desc></top>'
    assert list(trec.topics(["title"])(written(tmp_path, clef))) == [Topic("C041", "Pestizide")]
    new = '<topics><topic number="1"><query>virus</query><question>why</question></topic></topics>'
    assert list(trec.topics(["query"])(written(tmp_path, new))) == [Topic("1", "virus")]
