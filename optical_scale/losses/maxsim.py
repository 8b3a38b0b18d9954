"""Late-interaction scores of all queries against all documents, differentiable in bounded memory."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

# Elements of the score block that exists at a time: 16 MiB in float32, so that it stays near a CPU's cache.
_BLOCK = 1 << 22


def maxsim(q_BQD: Tensor, q_weight_BQ: Tensor, d_KTD: Tensor, d_mask_KT: Tensor) -> Tensor:
    """Weighted mean over query tokens of the best document token's inner product.

    This is the sum of Khattab and Zaharia 2020 (arXiv 2004.12832, section 3.3) divided by the number of query tokens.
    Autograd over the scores of all tokens would keep B K Q T of them; here one index per query token and document is
    kept, B K Q, and the scores are made in blocks. Where two document tokens tie, the first gets the gradient.

    Args:
        q_BQD: query token vectors.
        q_weight_BQ: True or a positive weight at real query tokens; a query without any scores 0.
        d_KTD: document token vectors; every document has at least one real token.
        d_mask_KT: True at real document tokens.

    Returns:
        (B, K) scores.
    """
    weight_BQ = q_weight_BQ.float() if q_weight_BQ.dtype == torch.bool else q_weight_BQ
    weight_BQ = weight_BQ / weight_BQ.sum(1, keepdim=True).clamp_min(torch.finfo(weight_BQ.dtype).tiny)
    scores_BK: Tensor = _MaxSim.apply(q_BQD, weight_BQ.to(q_BQD.dtype), d_KTD, d_mask_KT)  # type: ignore[no-untyped-call]
    return scores_BK


class _MaxSim(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q_BQD: Tensor, weight_BQ: Tensor, d_KTD: Tensor, d_mask_KT: Tensor) -> Tensor:
        (queries, length), (documents, tokens) = weight_BQ.shape, d_mask_KT.shape
        d_ND = d_KTD.flatten(0, 1)
        bias_N = torch.zeros(d_mask_KT.shape, dtype=q_BQD.dtype, device=q_BQD.device)
        bias_N = bias_N.masked_fill_(~d_mask_KT, -torch.inf).flatten()
        best_BQK = q_BQD.new_empty(queries, length, documents)
        index_BQK = torch.empty(queries, length, documents, dtype=torch.int64, device=q_BQD.device)
        for rows in _blocks(queries, length * documents * tokens):
            scores_RN = torch.addmm(bias_N, q_BQD[rows].flatten(0, 1), d_ND.T)
            best, index = scores_RN.view(-1, length, documents, tokens).max(-1)
            best_BQK[rows], index_BQK[rows] = best, index
        ctx.save_for_backward(q_BQD, weight_BQ, d_KTD, index_BQK)
        return torch.einsum("bqk,bq->bk", best_BQK, weight_BQ)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        q_BQD, weight_BQ, d_KTD, index_BQK = ctx.saved_tensors
        (gradient_BK,) = gradients
        if not index_BQK.numel():
            return torch.zeros_like(q_BQD), None, torch.zeros_like(d_KTD), None
        documents, tokens, width = d_KTD.shape
        # The gradient of the scores has one entry per query token and document: sums of rows, no matrix product.
        share_RK = (weight_BQ[:, :, None] * gradient_BK[:, None, :]).flatten(0, 1)
        best_RK = (index_BQK + tokens * torch.arange(documents, device=index_BQK.device)).flatten(0, 1)
        to_q = to_d = None
        if ctx.needs_input_grad[0]:
            to_q = functional.embedding_bag(best_RK, d_KTD.flatten(0, 1), mode="sum", per_sample_weights=share_RK)
            to_q = to_q.view_as(q_BQD)
        if ctx.needs_input_grad[2]:
            sorted_E, order_E = best_RK.flatten().sort()
            first_N = torch.searchsorted(sorted_E, torch.arange(documents * tokens, device=sorted_E.device))
            to_d = functional.embedding_bag(
                order_E // documents,
                q_BQD.reshape(-1, width),
                first_N,
                mode="sum",
                per_sample_weights=share_RK.flatten()[order_E],
            ).view_as(d_KTD)
        return to_q, None, to_d, None


def _blocks(rows: int, elements_per_row: int) -> list[slice]:
    size = max(1, _BLOCK // max(1, elements_per_row))
    return [slice(start, start + size) for start in range(0, rows, size)]
