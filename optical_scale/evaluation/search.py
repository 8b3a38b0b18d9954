"""Exact search of an encoded collection: blocks of documents against all queries, the best K kept, merged over ranks.

Nothing of the size queries times documents exists. Order of equal scores as in :mod:`.scoring`: the higher position,
that is the higher id, first, as trec_eval has it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from optical_scale.errors import EvaluationError
from optical_scale.evaluation.encoding import EncodedSet, gather_shares
from optical_scale.evaluation.results import Mode
from optical_scale.evaluation.scoring import DENSE_DECIMALS, MAXSIM_DECIMALS, maxsim
from optical_scale.evaluation.token_matrices import Block, TokenMatrices
from optical_scale.runtime.world import World

TOKENS_PER_BLOCK = {"cpu": 1 << 16, "cuda": 1 << 20}
_NOTHING = torch.iinfo(torch.int64).min


@dataclass(frozen=True, slots=True)
class Hits:
    """The best documents of Q queries.

    Attributes:
        positions_QK: int64 positions of documents, best first; -1 where a query has fewer than K.
        scores_QK: float64 scores in the fixed point that decides ties.
    """

    positions_QK: NDArray[np.int64]
    scores_QK: NDArray[np.float64]


@torch.no_grad()
def search_matrices(
    queries: EncodedSet, matrices: TokenMatrices, mode: Mode, *, top_k: int, world: World | None = None
) -> Hits:
    """The best documents of every query over the whole collection; collective, every rank returns all of it.

    Args:
        queries: Q items, the same on every rank.
        matrices: the collection; ranks share its blocks.
        mode: ``dense`` (cosine of pooled vectors) or ``late_interaction`` (sum over query tokens of the best cosine).
        top_k: documents per query.
        world: the ranks; None: this process alone.

    Raises:
        EvaluationError: vectors of queries and documents differ in width.
    """
    world = world or World()
    _check_width(queries, matrices)
    device = queries.dense_ID.device
    top_k = min(top_k, matrices.documents)
    best_QK = torch.full((len(queries), top_k), _NOTHING, device=device)
    for block in matrices.blocks(TOKENS_PER_BLOCK.get(device.type, 1 << 16), world, device):
        keys_QP = _document_keys(queries, block, mode, matrices.documents)
        fresh_QK = keys_QP.topk(min(top_k, keys_QP.shape[1]), dim=1).values
        best_QK = torch.cat((best_QK, fresh_QK), dim=1).topk(top_k, dim=1).values
    if world.size > 1:
        parts = gather_shares(best_QK, world).view(world.size, len(queries), top_k)
        best_QK = parts.transpose(0, 1).flatten(1).topk(top_k, dim=1).values
    return _hits(best_QK, matrices.documents, mode)


@torch.no_grad()
def rerank(queries: EncodedSet, matrices: TokenMatrices, candidates: Sequence[Sequence[int]], mode: Mode) -> Hits:
    """Score only the given documents of each query; every process for itself.

    Args:
        queries: Q items.
        matrices: the collection.
        candidates: positions of the documents of each query, without repetition.
        mode: as in :func:`search_matrices`.

    Raises:
        EvaluationError: as there, or a position outside the collection.
    """
    _check_width(queries, matrices)
    longest = max(map(len, candidates), default=0)
    keys_QK = torch.full((len(queries), longest), _NOTHING)
    for query, positions in enumerate(candidates):
        if any(not 0 <= position < matrices.documents for position in positions):
            raise EvaluationError(f"rerank: query {query} has a position outside 0 … {matrices.documents - 1}")
        if positions:
            block = matrices.pick(positions, queries.dense_ID.device)
            keys_1K = _document_keys(queries.span(query, query + 1), block, mode, matrices.documents)
            keys_QK[query, : len(positions)] = keys_1K[0].cpu()
    return _hits(keys_QK.sort(dim=1, descending=True).values, matrices.documents, mode)


def _document_keys(queries: EncodedSet, block: Block, mode: Mode, documents: int) -> Tensor:
    """Distinct int64 keys (Q, documents of the block) whose descending order is: score, then position."""
    if mode == "dense":
        scores_QP = queries.dense_ID @ block.passages.dense_ID.T
    else:
        scores_QP = maxsim(queries, block.passages)
    positions_K, passage_of = torch.unique_consecutive(block.document_P, return_inverse=True)
    if len(positions_K) < len(passage_of):  # a document is as good as its best passage
        best_QK = scores_QP.new_full((len(queries), len(positions_K)), -torch.inf)
        scores_QP = best_QK.scatter_reduce(1, passage_of.expand(len(queries), -1), scores_QP, "amax")
    keys_QK: Tensor = (scores_QP.double() * 10 ** _decimals(mode)).round().long() * documents + positions_K
    return keys_QK


def _hits(keys_QK: Tensor, documents: int, mode: Mode) -> Hits:
    keys = keys_QK.cpu().numpy()
    empty = keys == _NOTHING
    positions = np.where(empty, -1, keys % documents)
    return Hits(positions, np.where(empty, -np.inf, keys // documents / 10.0 ** _decimals(mode)))


def _decimals(mode: Mode) -> int:
    return DENSE_DECIMALS if mode == "dense" else MAXSIM_DECIMALS


def _check_width(queries: EncodedSet, matrices: TokenMatrices) -> None:
    if queries.dense_ID.shape[1] != matrices.width:
        raise EvaluationError(
            f"search: query vectors have width {queries.dense_ID.shape[1]}, document vectors {matrices.width}; "
            "queries and documents need encoders of one space"
        )
