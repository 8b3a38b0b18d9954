import pytest

from optical_scale.corpora.collections.folder import CollectionFolder, write_collection
from optical_scale.corpora.collections.pairs import CollectionCorpus
from optical_scale.corpora.collections.parts import Document, Judgement, Topic
from optical_scale.errors import CorpusError
from optical_scale.records import TextPair

DOCUMENTS = [Document("d2", "zwei\u2028Zeilen"), Document("d10", "ten"), Document("d1", "one")]
TOPICS = {"de": [Topic("q2", "was"), Topic("q1", "wer")], "sw": [Topic("q1", "nani")]}
JUDGED = {
    "de": [Judgement("q1", "d1", 2), Judgement("q2", "d10", 1), Judgement("q1", "d2", 0)],
    "sw": [Judgement("q1", "d1", 1)],
}


def test_what_goes_in_comes_out_in_the_order_of_ids(tmp_path):
    counts = write_collection(tmp_path / "c", "toy", DOCUMENTS, TOPICS, JUDGED)
    folder = CollectionFolder(tmp_path / "c")
    assert not counts
    assert folder.languages == ("de", "sw")
    assert folder.ids == ("d1", "d10", "d2")
    assert list(folder.texts) == ["one", "ten", "zwei\u2028Zeilen"]
    assert folder.texts[1:] == ["ten", "zwei\u2028Zeilen"]
    assert list(folder.topics("de").items()) == [("q1", "wer"), ("q2", "was")]
    assert folder.qrels("de") == {"q1": {"d1": 2, "d2": 0}, "q2": {"d10": 1}}
    with pytest.raises(CorpusError, match="it has de, sw"):
        folder.topics("fr")


def test_odd_things_that_standard_tools_accept_are_counted(tmp_path):
    counts = write_collection(
        tmp_path / "c",
        "toy",
        [*DOCUMENTS, Document("d1", "one"), Document("d3", " ")],
        {"de": [*TOPICS["de"], Topic("q3", "unjudged"), Topic("q4", "none relevant")]},
        {
            "de": [
                *JUDGED["de"],
                Judgement("q1", "d1", 2),
                Judgement("q9", "d1", 1),
                Judgement("q2", "gone", 1),
                Judgement("q4", "d1", 0),
            ]
        },
    )
    assert counts == {
        "document repeated": 1,
        "blank document": 1,
        "de: topic without relevant document": 2,
        "de: judgement repeated": 1,
        "de: judgement of unknown topic": 1,
        "de: judgement of unknown document": 1,
    }
    folder = CollectionFolder(tmp_path / "c")
    assert folder.manifest["counted"] == counts
    assert set(folder.topics("de")) == {"q1", "q2"}
    assert folder.qrels("de")["q2"] == {"d10": 1, "gone": 1}  # it stays and counts as not found


@pytest.mark.parametrize(
    ("documents", "topics", "judged", "message"),
    [
        ([*DOCUMENTS, Document("d1", "other")], TOPICS["sw"], JUDGED["sw"], "d1 occurs twice with different texts"),
        ([], TOPICS["sw"], JUDGED["sw"], "there are none"),
        (DOCUMENTS, [Topic("q1", "a"), Topic("q1", "b")], JUDGED["sw"], "q1 occurs twice with different texts"),
        (DOCUMENTS, [Topic("q1", " ")], JUDGED["sw"], "q1 is blank"),
        (DOCUMENTS, TOPICS["sw"], [*JUDGED["sw"], Judgement("q1", "d1", 3)], "the grades 1 and 3"),
        (DOCUMENTS, TOPICS["sw"], [Judgement("x", "d1", 1)], "do topics and judgements belong together"),
        (DOCUMENTS, TOPICS["sw"], [Judgement("q1", "x7", 1)], "no relevant document is in the collection"),
    ],
)
def test_what_would_change_results_unseen_is_refused_and_nothing_is_left(tmp_path, documents, topics, judged, message):
    with pytest.raises(CorpusError, match=message):
        write_collection(tmp_path / "c", "toy", documents, {"sw": topics}, {"sw": judged})
    assert list(tmp_path.iterdir()) == []


def test_a_full_folder_and_a_tampered_manifest_are_refused(tmp_path):
    write_collection(tmp_path / "c", "toy", DOCUMENTS, TOPICS, JUDGED)
    with pytest.raises(CorpusError, match="not empty"):
        write_collection(tmp_path / "c", "toy", DOCUMENTS, TOPICS, JUDGED)
    manifest = tmp_path / "c" / "manifest.json"
    manifest.write_text(manifest.read_text().replace("topics/sw.jsonl", "topics/xx.jsonl"))
    with pytest.raises(CorpusError, match="edited or damaged"):
        CollectionFolder(tmp_path / "c")
    with pytest.raises(CorpusError, match="no retrieval collection"):
        CollectionFolder(tmp_path)


def test_topics_and_their_relevant_documents_are_bitext_for_training(tmp_path):
    judged = {"de": [*JUDGED["de"], Judgement("q2", "gone", 1), Judgement("q1", "d10", 1)], "sw": JUDGED["sw"]}
    write_collection(tmp_path / "c", "toy", DOCUMENTS, TOPICS, judged)
    corpus = CollectionCorpus("toy", tmp_path / "c", "de")
    assert list(corpus) == [
        TextPair("toy-de-00000000", "de", "one", "wer", "toy"),
        TextPair("toy-de-00000001", "de", "ten", "wer", "toy"),
        TextPair("toy-de-00000002", "de", "ten", "was", "toy"),
    ]
    assert corpus.count() == 3
