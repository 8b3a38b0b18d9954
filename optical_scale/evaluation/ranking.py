"""Retrieval metrics from the ranks of relevant documents; pure, no scores and no tensors.

Every function takes for each query the ascending 1-based ranks of *all* its relevant documents, as
:class:`optical_scale.evaluation.scoring.Ranking` holds them, and returns one value in [0, 1] per query; the metric of
the collection is their mean. Relevance is binary.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ranks = Sequence[NDArray[np.int64]]
Values = NDArray[np.float64]


def reciprocal_rank(ranks: Ranks, k: int | None = None) -> Values:
    """1 / rank of the first relevant document, 0 when it is beyond ``k``; the mean is MRR (or MRR@k)."""
    first = np.array([r[0] for r in ranks], dtype=np.float64)
    return np.where(first <= (np.inf if k is None else k), 1.0 / first, 0.0)


def average_precision(ranks: Ranks) -> Values:
    """Mean over the relevant documents of the precision at their ranks; the mean over queries is MAP."""
    return np.array([np.mean(np.arange(1, len(r) + 1) / r) for r in ranks])


def recall(ranks: Ranks, k: int) -> Values:
    """Share of the relevant documents among the first ``k``."""
    return np.array([np.mean(r <= k) for r in ranks])


def any_hit(ranks: Ranks, k: int) -> Values:
    """1 if any relevant document is among the first ``k``: success@k, and the R@k of image-text retrieval papers."""
    return np.array([float(r[0] <= k) for r in ranks])


def ndcg(ranks: Ranks, k: int) -> Values:
    """Normalised discounted cumulative gain of the first ``k``, gain 1, discount log2(rank + 1).

    Järvelin and Kekäläinen, 2002; the ideal list has min(k, relevant documents) hits, as in trec_eval's ndcg_cut.
    """
    ideal = np.cumsum(1.0 / np.log2(np.arange(2, k + 2)))
    return np.array([np.sum(1.0 / np.log2(r[r <= k] + 1.0)) / ideal[min(k, len(r)) - 1] for r in ranks])


def chance_reciprocal_rank(relevant: int, documents: int) -> float:
    """Expected reciprocal rank when the order is a uniform random permutation.

    With one relevant document the harmonic mean term H_n / n; in general the sum over j of P(first hit at j) / j.
    """
    beyond = _probability_first_hit_beyond(relevant, documents)
    return float(np.sum((beyond[:-1] - beyond[1:]) / np.arange(1, documents + 1)))


def chance_any_hit(relevant: int, documents: int, k: int) -> float:
    """Expected any-hit@k of a random order: 1 - C(n - r, k) / C(n, k)."""
    return float(1.0 - _probability_first_hit_beyond(relevant, documents)[min(k, documents)])


def chance_average_precision(relevant: int, documents: int) -> float:
    """Expected average precision of a random order: (H_n + (r - 1) / (n - 1) * (n - H_n)) / n."""
    harmonic = float(np.sum(1.0 / np.arange(1, documents + 1)))
    others = (relevant - 1) / (documents - 1) if documents > 1 else 0.0
    return (harmonic + others * (documents - harmonic)) / documents


def _probability_first_hit_beyond(relevant: int, documents: int) -> Values:
    """P(no relevant document among the first j) for j = 0 … n."""
    drawn = np.arange(documents)
    still_missing = np.clip(documents - relevant - drawn, 0, None) / (documents - drawn)
    return np.concatenate([[1.0], np.cumprod(still_missing)])
