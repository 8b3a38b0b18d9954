import itertools
import math

import numpy as np
import pytest

from optical_scale.evaluation.ranking import (
    any_hit,
    average_precision,
    chance_any_hit,
    chance_average_precision,
    chance_reciprocal_rank,
    ndcg,
    recall,
    reciprocal_rank,
)

RANKS = [np.array([1, 3, 10]), np.array([4]), np.array([2, 5])]


def lists(length=12):
    """The same as relevance flags down each result list."""
    return [[position in ranks for position in range(1, length + 1)] for ranks in RANKS]


def oracle(flags, k):
    """Definitions written out by walking down one list."""
    hits, precisions, gain = 0, [], 0.0
    for position, flag in enumerate(flags, start=1):
        if flag:
            hits += 1
            precisions.append(hits / position)
            gain += 1 / math.log2(position + 1) if position <= k else 0.0
    ideal = sum(1 / math.log2(position + 1) for position in range(1, min(k, hits) + 1))
    first = flags.index(True) + 1
    return {
        "ap": sum(precisions) / hits,
        "rr": 1 / first if first <= k else 0.0,
        "recall": sum(flags[:k]) / hits,
        "hit": float(any(flags[:k])),
        "ndcg": gain / ideal,
    }


@pytest.mark.parametrize("k", [1, 2, 3, 5, 10])
def test_metrics_equal_their_definitions(k):
    expected = [oracle(flags, k) for flags in lists()]
    for name, found in (
        ("ap", average_precision(RANKS)),
        ("rr", reciprocal_rank(RANKS, k)),
        ("recall", recall(RANKS, k)),
        ("hit", any_hit(RANKS, k)),
        ("ndcg", ndcg(RANKS, k)),
    ):
        np.testing.assert_allclose(found, [row[name] for row in expected], err_msg=name)


def test_reciprocal_rank_without_cutoff():
    np.testing.assert_allclose(reciprocal_rank(RANKS), [1, 1 / 4, 1 / 2])


def test_any_hit_and_recall_differ_with_several_relevant_documents():
    assert any_hit(RANKS, 1).tolist() == [1, 0, 0]
    np.testing.assert_allclose(recall(RANKS, 1), [1 / 3, 0, 0])


@pytest.mark.parametrize(("relevant", "documents"), [(1, 1), (1, 6), (2, 6), (3, 5), (4, 4)])
def test_chance_is_the_mean_over_all_orders(relevant, documents):
    orders = [np.array(c) for c in itertools.combinations(range(1, documents + 1), relevant)]
    assert chance_reciprocal_rank(relevant, documents) == pytest.approx(reciprocal_rank(orders).mean())
    assert chance_average_precision(relevant, documents) == pytest.approx(average_precision(orders).mean())
    for k in (1, 2, 5, 10):
        assert chance_any_hit(relevant, documents, k) == pytest.approx(any_hit(orders, k).mean())


def test_chance_of_one_relevant_document_is_the_harmonic_mean_term():
    assert chance_reciprocal_rank(1, 100) == pytest.approx(sum(1 / r for r in range(1, 101)) / 100)
    assert chance_any_hit(1, 100, 10) == pytest.approx(0.1)
