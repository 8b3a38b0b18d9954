import numpy as np
import pytest
import torch

from optical_scale.errors import EvaluationError
from optical_scale.evaluation import scoring
from optical_scale.evaluation.encoding import EncodedSet
from optical_scale.evaluation.scoring import dense_ranks, maxsim, maxsim_ranks, maxsim_ranks_of_queries


def random_set(items: int, seed: int, longest: int = 9, width: int = 12) -> EncodedSet:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest + 1, (items,), generator=generator)
    x_TD = torch.nn.functional.normalize(torch.randn(int(lengths.sum()), width, generator=generator), dim=-1)
    dense_ID = torch.nn.functional.normalize(torch.randn(items, width, generator=generator), dim=-1)
    return EncodedSet(x_TD, torch.nn.functional.pad(lengths.cumsum(0), (1, 0)), dense_ID)


def brute_force_maxsim(queries: EncodedSet, documents: EncodedSet) -> torch.Tensor:
    rows = [
        [
            (queries.span(q, q + 1).x_TD @ documents.span(k, k + 1).x_TD.T).max(dim=1).values.sum()
            for k in range(len(documents))
        ]
        for q in range(len(queries))
    ]
    return torch.tensor(rows)


def oracle_ranks(scores_QK: torch.Tensor, relevant: list[list[int]]) -> list[list[int]]:
    """Sort by (score, position), both descending, as trec_eval does with (score, document number)."""
    found = []
    for scores, wanted in zip(scores_QK.tolist(), relevant, strict=True):
        order = sorted(range(len(scores)), key=lambda k: (scores[k], k), reverse=True)
        found.append(sorted(order.index(k) + 1 for k in wanted))
    return found


@pytest.fixture(params=["one block", "many blocks"])
def blocks(request, monkeypatch):
    if request.param == "many blocks":
        monkeypatch.setattr(scoring, "_DOCUMENTS_PER_BLOCK", 7)
        monkeypatch.setattr(scoring, "_SIMILARITIES_PER_BLOCK", {"cpu": 100})
        monkeypatch.setattr(scoring, "_SCORES_PER_BLOCK", 100)


@pytest.mark.usefixtures("blocks")
def test_packed_maxsim_equals_brute_force():
    queries, documents = random_set(11, 0), random_set(40, 1)
    torch.testing.assert_close(maxsim(queries, documents), brute_force_maxsim(queries, documents))


@pytest.mark.usefixtures("blocks")
def test_ranks_and_heads_equal_a_full_sort():
    queries, documents = random_set(11, 2), random_set(40, 3)
    rng = np.random.default_rng(0)
    relevant = [sorted(rng.choice(40, size=rng.integers(1, 6), replace=False).tolist()) for _ in range(11)]
    for rank, scores_QK in (
        (dense_ranks, queries.dense_ID @ documents.dense_ID.T),
        (maxsim_ranks, brute_force_maxsim(queries, documents)),
    ):
        ranking = rank(queries, documents, relevant, top_k=5)
        assert [r.tolist() for r in ranking.ranks] == oracle_ranks(scores_QK, relevant)
        best = scores_QK.topk(5)
        assert ranking.top_ids_QK.tolist() == best.indices.tolist()
        np.testing.assert_allclose(ranking.top_scores_QK, best.values.numpy(), atol=2e-5)


@pytest.mark.usefixtures("blocks")
def test_the_other_direction_ranks_queries_by_their_mean():
    queries, documents = random_set(30, 4), random_set(9, 5)
    relevant = [[k, k + 10] for k in range(9)]
    ranking = maxsim_ranks_of_queries(queries, documents, relevant)
    mean_KQ = (brute_force_maxsim(queries, documents) / queries.lengths.unsqueeze(1)).T
    assert [r.tolist() for r in ranking.ranks] == oracle_ranks(mean_KQ, relevant)


def constant_set(items: int) -> EncodedSet:
    one_D = torch.nn.functional.normalize(torch.linspace(-1, 1, 12), dim=0)
    return EncodedSet(one_D.expand(items * 3, 12), torch.arange(items + 1) * 3, one_D.expand(items, 12))


@pytest.mark.parametrize("rank", [dense_ranks, maxsim_ranks])
def test_equal_scores_put_the_higher_document_first(rank):
    ranking = rank(constant_set(6), constant_set(6), [[q] for q in range(6)], top_k=3)
    assert [r.tolist() for r in ranking.ranks] == [[6], [5], [4], [3], [2], [1]]
    assert ranking.top_ids_QK.tolist() == [[5, 4, 3]] * 6


def test_half_precision_vectors_are_accepted():
    queries, documents = random_set(5, 6), random_set(8, 7)
    half = [EncodedSet(s.x_TD.half(), s.offsets, s.dense_ID) for s in (queries, documents)]
    torch.testing.assert_close(maxsim(*half), maxsim(queries, documents), atol=5e-3, rtol=0)


@pytest.mark.parametrize("relevant", [[], [[0], []], [[0], [8]], [[0], [-1]]])
def test_impossible_relevance_is_refused(relevant):
    with pytest.raises(EvaluationError, match="quer"):
        dense_ranks(random_set(2, 8), random_set(8, 9), relevant)
