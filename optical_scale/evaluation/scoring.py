"""Exact ranks under dense and late-interaction scores, a block of rows at a time.

Order of equal scores: as in trec_eval, higher score first and, within one score, the *higher* document position first.
Callers sort their documents by id, so position order is id order and the input order of documents cannot matter. A
constant scorer then spreads relevant documents over all ranks instead of putting each one first, and earns the chance
level. Scores are compared in fixed point (:data:`DENSE_DECIMALS`, :data:`MAXSIM_DECIMALS`): matrix products of equal
vectors may differ in their last bit with block shape and hardware, and that noise must not break ties.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from optical_scale.errors import EvaluationError
from optical_scale.evaluation.encoding import EncodedSet, gather_shares, share_of
from optical_scale.runtime.world import World

DENSE_DECIMALS = 6
"""A cosine of unit vectors in float32 carries about seven digits."""
MAXSIM_DECIMALS = 5
"""A sum over up to about a hundred token cosines loses one to two of them."""

_DOCUMENTS_PER_BLOCK = 64
_SIMILARITIES_PER_BLOCK = {"cpu": 1 << 20, "cuda": 64 << 20}
_SCORES_PER_BLOCK = 16 << 20


@dataclass(frozen=True, slots=True)
class Ranking:
    """Where the relevant documents of Q queries came out, and what came out on top.

    Attributes:
        ranks: Q ascending int64 arrays, the 1-based ranks of each query's relevant documents.
        top_ids_QK: int64 positions of the best K documents, best first.
        top_scores_QK: their float64 scores.
        documents: size of the collection.
    """

    ranks: tuple[NDArray[np.int64], ...]
    top_ids_QK: NDArray[np.int64]
    top_scores_QK: NDArray[np.float64]
    documents: int


def dense_ranks(
    queries: EncodedSet,
    documents: EncodedSet,
    relevant: Sequence[Sequence[int]],
    *,
    top_k: int = 10,
    world: World | None = None,
) -> Ranking:
    """Rank all documents by the cosine of pooled embeddings.

    Args:
        queries: Q items.
        documents: K items, sorted by id.
        relevant: for each query the positions of its relevant documents, at least one.
        top_k: how many of the best documents to return.
        world: share the queries among these ranks; every rank returns everything. None: this process alone.

    Raises:
        EvaluationError: a query without relevant document, or a position outside the collection.
    """

    def rows(start: int, stop: int) -> Tensor:
        return queries.dense_ID[start:stop] @ documents.dense_ID.T

    return _rank(rows, len(documents), relevant, DENSE_DECIMALS, top_k, world or World())


def maxsim_ranks(
    queries: EncodedSet,
    documents: EncodedSet,
    relevant: Sequence[Sequence[int]],
    *,
    top_k: int = 10,
    world: World | None = None,
) -> Ranking:
    """Rank all documents by MaxSim; arguments and errors as for :func:`dense_ranks`."""

    def rows(start: int, stop: int) -> Tensor:
        return maxsim(queries.span(start, stop), documents)

    return _rank(rows, len(documents), relevant, MAXSIM_DECIMALS, top_k, world or World())


def maxsim_ranks_of_queries(
    queries: EncodedSet,
    documents: EncodedSet,
    relevant: Sequence[Sequence[int]],
    *,
    top_k: int = 10,
    world: World | None = None,
) -> Ranking:
    """The other direction: for each document rank all queries, by MaxSim divided by the query's number of tokens.

    The mean instead of the sum, as in FILIP (arXiv 2111.07783): a longer query would otherwise win by its length
    alone. Within one query mean and sum order documents alike, so both directions use one score. ``relevant`` lists
    for each document the positions of its queries.
    """
    tokens_Q1 = queries.lengths.unsqueeze(1).float()

    def rows(start: int, stop: int) -> Tensor:
        return (maxsim(queries, documents.span(start, stop)) / tokens_Q1).T

    return _rank(rows, len(queries), relevant, DENSE_DECIMALS, top_k, world or World())


def maxsim(queries: EncodedSet, documents: EncodedSet) -> Tensor:
    """Late-interaction scores of all pairs, float32 (Q, K): the sum over query tokens of the best document token.

    ColBERT, arXiv 2004.12832, equation 3, on unit vectors. Documents are visited in blocks of similar length, padded by
    repeating their first token (which leaves a maximum as it is). Measured on one CPU core, 1,000 by 1,000 items of 10
    to 39 tokens at width 384: 3.5 s, against 4.7 s for ``torch.segment_reduce`` over the packed tokens.
    """
    scores_QK = torch.empty(len(queries), len(documents), device=queries.x_TD.device)
    lengths_K = documents.lengths
    query_of_T = torch.repeat_interleave(torch.arange(len(queries), device=scores_QK.device), queries.lengths)
    budget = _SIMILARITIES_PER_BLOCK.get(scores_QK.device.type, 1 << 20)
    for block in torch.split(lengths_K.argsort(stable=True), _DOCUMENTS_PER_BLOCK):
        lengths = lengths_K[block].unsqueeze(1)
        longest = int(lengths.max())
        column = torch.arange(longest, device=block.device).unsqueeze(0)
        rows = documents.offsets[block].unsqueeze(1) + torch.where(column < lengths, column, 0)
        tokens_DT = documents.x_TD[rows.flatten()].float().T
        sums_QB = torch.zeros(len(queries), len(block), device=scores_QK.device)
        step = max(1, budget // tokens_DT.shape[1])
        for start in range(0, len(query_of_T), step):
            cosines_TD = queries.x_TD[start : start + step].float() @ tokens_DT
            best_TB = cosines_TD.view(-1, len(block), longest).amax(2)
            sums_QB.index_add_(0, query_of_T[start : start + step], best_TB)
        scores_QK[:, block] = sums_QB
    return scores_QK


@torch.no_grad()
def _rank(
    score_rows: Callable[[int, int], Tensor],
    documents: int,
    relevant: Sequence[Sequence[int]],
    decimals: int,
    top_k: int,
    world: World,
) -> Ranking:
    """Score this rank's share of the queries block by block, keep ranks and heads of the lists, gather them."""
    _check_relevant(relevant, documents)
    queries, width, top_k = len(relevant), max(map(len, relevant)), min(top_k, documents)
    share = share_of(queries, world)
    # Every row repeats its first relevant document up to the common width; the repetitions are cut after the gather.
    padded = np.array([[*r, *[r[0]] * (width - len(r))] for r in relevant], dtype=np.int64)
    ranks: list[Tensor] = []
    top_keys: list[Tensor] = []
    block = max(1, _SCORES_PER_BLOCK // documents)
    # A rank whose share lies past the end still scores the last query, so that it has rows to bring to the gather.
    for start in range(min(share.start, queries - 1), min(share.stop, queries), block):
        stop = min(start + block, share.stop, queries)
        keys_QK = _keys(score_rows(start, stop), decimals)
        wanted_QR = keys_QK.gather(1, torch.from_numpy(padded[start:stop]).to(keys_QK.device))
        better = [(keys_QK > wanted_QR[:, column : column + 1]).sum(1) for column in range(width)]
        ranks.append(torch.stack(better, dim=1) + 1)
        top_keys.append(keys_QK.topk(top_k, dim=1).values)
    ranks_QR, keys_QT = (_gather_rows(part, len(share), queries, world) for part in (ranks, top_keys))
    return Ranking(
        tuple(np.sort(row[: len(r)]) for row, r in zip(ranks_QR, relevant, strict=True)),
        keys_QT % documents,
        (keys_QT // documents) / 10.0**decimals,
        documents,
    )


def _keys(scores_QK: Tensor, decimals: int) -> Tensor:
    """Distinct int64 keys whose descending order is: score in fixed point, then document position."""
    documents = scores_QK.shape[1]
    fixed_point: Tensor = (scores_QK.double() * 10**decimals).round().long()
    return fixed_point * documents + torch.arange(documents, device=scores_QK.device)


def _gather_rows(parts: list[Tensor], share: int, queries: int, world: World) -> NDArray[np.int64]:
    """Rows of all ranks without the padding rows at the end."""
    mine = torch.cat(parts)[:share]
    mine = torch.nn.functional.pad(mine, (0, 0, 0, share - len(mine)))
    rows: NDArray[np.int64] = gather_shares(mine, world)[:queries].cpu().numpy()
    return rows


def _check_relevant(relevant: Sequence[Sequence[int]], documents: int) -> None:
    if not relevant:
        raise EvaluationError("evaluation: there is no query to rank for; check the data and its filters")
    for query, positions in enumerate(relevant):
        if not positions or min(positions) < 0 or max(positions) >= documents:
            raise EvaluationError(
                f"evaluation: query {query} has relevant documents {list(positions)[:10]}; expected at least one, "
                f"each a position from 0 to {documents - 1}"
            )
