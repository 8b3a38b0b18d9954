import gzip
import json

import pytest

from optical_scale.corpora.collections.candidates import Mining
from optical_scale.corpora.collections.folder import write_collection
from optical_scale.corpora.collections.pairs import CollectionCorpus
from optical_scale.corpora.collections.parts import Document, Judgement, Topic
from optical_scale.corpora.reader import LeftOut
from optical_scale.errors import CorpusError
from optical_scale.records import TextPair


@pytest.fixture
def folder(tmp_path):
    """Documents d0 to d9 with text 0 to 9, but d9 repeats d1; q1 is answered by d1, q2 by d2 and d3."""
    documents = [Document(f"d{at}", str(1 if at == 9 else at)) for at in range(10)]
    judged = [Judgement("q1", "d1", 1), Judgement("q2", "d2", 1), Judgement("q2", "d3", 2), Judgement("q2", "d4", 0)]
    topics = [Topic("q1", "first"), Topic("q2", "second")]
    write_collection(tmp_path / "collection", "c", documents, {"en": topics}, {"en": judged})
    return tmp_path


def mined(folder, text, most=3, margin=None, name="candidates"):
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    corpus = CollectionCorpus("c", folder / "collection", "en", Mining(path, most, margin))
    found = list(corpus)
    assert found == list(corpus)
    pairs = [item for item in found if isinstance(item, TextPair)]
    assert len(pairs) == corpus.count() == 3
    assert [(pair.source, pair.target) for pair in pairs] == [("1", "first"), ("2", "second"), ("3", "second")]
    counts = {item.reason.removeprefix("part:"): item.number for item in found if isinstance(item, LeftOut)}
    return [("".join(pair.negatives), pair.scores) for pair in pairs], counts


def run_of(**topics):
    return "".join(
        f"{topic} Q0 {document} {rank} {score} tag\n"
        for topic, row in topics.items()
        for rank, (document, score) in enumerate(row.items(), start=1)
    )


def test_a_run_gives_the_best_documents_that_do_not_answer(folder):
    run = run_of(q1={"d5": 0.9, "d1": 0.8, "d6": 0.7, "d7": 0.6}, q2={"d4": 0.5, "d2": 0.4, "d8": 0.3})
    found, counts = mined(folder, run, most=2, name="run.txt.gz")
    assert found == [("56", (0.8, 0.9, 0.7)), ("48", (0.4, 0.5, 0.3)), ("48", ())]
    assert counts == {"answers not among candidates": 1}


def test_a_margin_leaves_out_what_may_answer(folder):
    run = run_of(q1={"d5": 0.77, "d6": 0.75, "d1": 0.8, "d7": 0.6}, q2={"d4": -2.0, "d2": -4.0, "d8": -4.3, "d7": -4.1})
    found, _ = mined(folder, run, margin=0.95)
    # 0.95 x 0.8 = 0.76; of -4 the share lies at -4.2; d3 is no candidate, so everything listed may be better than it.
    assert found == [("67", (0.8, 0.75, 0.6)), ("8", (-4.0, -4.3)), ("", ())]


def test_triples_in_any_order_are_collected(folder):
    triples = "q2\td2\td5\nq1\td1\td7\nq2\td2\td6\nq9\td1\td2\nq2\td3\td5\nq2\td3\td7\nq2\td3\td8\n"
    assert mined(folder, triples) == ([("7", ()), ("567", ()), ("567", ())], {"candidates of unknown topic": 1})


@pytest.mark.parametrize(
    "lines",
    [
        [["q1", ["d1", 5.5], ["d7", -1], ["d5", 2]]],
        [{"query_id": "q1", "document_ids": ["d7", "d1", "d5"], "scores": [-1, 5.5, 2]}],
    ],
)
def test_scored_lists(folder, lines):
    found, _ = mined(folder, "\n".join(map(json.dumps, lines)))
    assert found == [("57", (5.5, 2.0, -1.0)), ("", ()), ("", ())]


def test_lists_without_scores(folder):
    assert mined(folder, '["q1", "d1", "d7", "d5"]\n')[0][0] == ("75", ())


def test_a_copy_of_the_answer_is_no_negative(folder):
    found, counts = mined(folder, run_of(q1={"d9": 3, "d1": 2, "d5": 1}))
    assert found[0] == ("5", (2.0, 1.0))
    assert counts == {"answer among negatives": 1}


@pytest.mark.parametrize(
    ("text", "margin", "message"),
    [
        ("", None, "the file is empty"),
        ("q1\td1\n", None, ":1: 'q1 d1'; expected"),
        ("q1 Q0 d1 1 high tag\n", None, ":1: 'q1 Q0 d1 1 high tag'; expected"),
        ("q1 Q0 d1 1 3 tag\nq1 Q0 d1 2 2 tag\n", None, ":2: .* no document twice"),
        ("q1 Q0 dx 1 3 tag\n", None, ":1: document dx is not in the collection"),
        ("q1 Q0 d5 1 3 tag\nq2 Q0 d5 1 3 tag\nq1 Q0 d6 2 2 tag\n", None, ":3: topic q1 was listed before"),
        ("q1\td1\td5\n", 0.9, ":1: no scores, which `margin` compares"),
        ('["q1", ["d1", null]]', None, ":1: 1 documents and 1 scores; expected a finite number"),
        ('{"query": "q1"}', None, ':1: {"query": "q1"}; expected'),
        ('["q1", {}]', None, ":1: {} where an id is expected"),
    ],
)
def test_unusable_files_are_refused(folder, text, margin, message):
    with pytest.raises(CorpusError, match=message):
        mined(folder, text, margin=margin)
