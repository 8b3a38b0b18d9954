import pytest

from evaluation.encoders import constant_encoder, word_encoder
from optical_scale.corpora.collections.folder import CollectionFolder, write_collection
from optical_scale.corpora.collections.parts import Document, Judgement, Topic
from optical_scale.evaluation.collection_retrieval import evaluate_collection
from optical_scale.runtime.world import World

pytest.importorskip("ir_measures")


@pytest.fixture
def collection(tmp_path):
    """Forty documents with a word of their own each; every topic is the text of its document."""
    names = [chr(97 + n) for n in range(26)]
    documents = [
        Document(f"d{n:02}", f"{names[n % 26]} {names[(n * 7 + 3) % 26]} {names[(n * 11) % 26]} n{n}")
        for n in range(40)
    ]
    topics = {tag: [Topic(f"q{n}", f"{tag}:{documents[n].text}") for n in range(10)] for tag in ("xx", "yy")}
    judged = {tag: [Judgement(f"q{n}", f"d{n:02}", 1) for n in range(10)] for tag in topics}
    write_collection(tmp_path / "c", "toy", documents, topics, judged)
    return CollectionFolder(tmp_path / "c")


def test_a_good_encoder_finds_everything_in_its_language_and_documents_are_encoded_once(collection):
    calls = []

    def documents(texts):
        calls.append(len(texts))
        return word_encoder()(texts)

    cache = {}
    for _ in range(2):
        results = evaluate_collection(
            collection, word_encoder(), documents, batch_size=8, world=World(), languages=["xx"], cache=cache
        )
    assert sum(calls) == 40
    assert [(r.language, r.mode, r.queries, r.documents) for r in results] == [
        ("xx", "dense", 10, 40),
        ("xx", "late_interaction", 10, 40),
    ]
    for result in results:
        assert result.metrics["nDCG@10"] == result.metrics["MRR"] == 1
        assert result.per_query["MAP"].shape == (10,)
        assert result.chance.keys() == result.metrics.keys()
    everything = evaluate_collection(collection, word_encoder(), documents, batch_size=8, world=World(), cache=cache)
    assert {result.language for result in everything} == {"xx", "yy"}


def test_a_collapsed_encoder_earns_no_more_than_the_order_of_ids(collection):
    results = evaluate_collection(collection, constant_encoder, constant_encoder, batch_size=8, world=World())
    for result in results:
        # All scores are tied, so the highest ids come first: q9 of d09 is at rank 31.
        assert result.metrics["MRR"] == pytest.approx(sum(1 / (40 - n) for n in range(10)) / 10)
        assert result.metrics["R@10"] == 0
        assert result.metrics["R@100"] == 1
