import pytest

from evaluation.encoders import constant_encoder, word_encoder
from optical_scale.errors import EvaluationError
from optical_scale.evaluation.bitext_retrieval import evaluate_bitext, known_items
from optical_scale.records import TextPair
from optical_scale.runtime.world import World


def pairs(language: str, texts: list[str]) -> list[TextPair]:
    return [TextPair(f"{language}{i}", language, text, f"xx:{text}") for i, text in enumerate(texts)]


def test_equal_english_texts_are_one_passage_and_equal_foreign_texts_one_query():
    rows = [TextPair(str(i), "sw", *both) for i, both in enumerate([("b", "x"), ("a", "y"), ("b", "z"), ("a", "x")])]
    queries, passages, relevant = known_items("sw", rows)
    assert passages == ("a", "b")
    assert queries == ("x", "y", "z")
    assert relevant == [(0, 1), (0,), (1,)]


def test_each_language_searches_only_its_own_passages():
    data = {"sw": pairs("sw", ["a b", "c d", "e"]), "hi": pairs("hi", ["a b", "f"])}
    results = evaluate_bitext(data, word_encoder(), word_encoder(), batch_size=2, world=World())
    assert [(r.language, r.mode, r.queries, r.documents) for r in results] == [
        ("sw", "dense", 3, 3),
        ("sw", "late_interaction", 3, 3),
        ("hi", "dense", 2, 2),
        ("hi", "late_interaction", 2, 2),
    ]
    assert all(r.metrics == {"R@1": 1.0, "R@10": 1.0, "MRR": 1.0, "MAP": 1.0} for r in results)


def test_a_collapsed_model_scores_exactly_chance():
    data = {"sw": pairs("sw", [f"word{i}" for i in range(40)])}
    for result in evaluate_bitext(data, constant_encoder, constant_encoder, batch_size=8, world=World()):
        assert result.metrics["MRR"] == pytest.approx(result.chance["MRR"])
        assert result.metrics["R@10"] == pytest.approx(10 / 40)
        assert result.metrics["MAP"] == pytest.approx(result.chance["MAP"])


def test_the_cache_spares_the_teacher():
    data = {"sw": pairs("sw", ["a b", "c d"]), "hi": pairs("hi", ["c d", "a b"]), "de": pairs("de", ["e"])}
    seen: list[str] = []

    def teacher(texts):
        seen.extend(texts)
        return word_encoder()(texts)

    cache: dict = {}
    for _ in range(2):
        evaluate_bitext(data, word_encoder(), teacher, batch_size=4, world=World(), passage_cache=cache)
    assert sorted(seen) == ["a b", "c d", "e"]
    seen.clear()
    evaluate_bitext(data, word_encoder(), teacher, batch_size=4, world=World())
    assert sorted(seen) == ["a b", "c d", "e"], "without a cache, consecutive equal collections are still shared"


def test_a_language_without_pairs_is_named():
    with pytest.raises(EvaluationError, match="language sw has no pairs"):
        evaluate_bitext({"sw": []}, word_encoder(), word_encoder(), batch_size=2, world=World())
