"""The kernel of the short tier: one program per pair, its Gibbs kernel in registers over all iterations."""

import triton
import triton.language as tl

from optical_scale.transport.triton.tiles import finite, inner_tile, weigh


@triton.jit
def sum_rows(tile, w_j, ok, LOG: tl.constexpr):
    """Maxima and sums over columns; sums of padding are one, so that weights stay finite."""
    if LOG:
        tile = tile + w_j[None, :]
        top = tl.max(tile, 1)
        return top, tl.where(ok, tl.sum(tl.exp2(tile - finite(top)[:, None]), 1), 1.0)
    else:
        total = tl.sum(tile * w_j[None, :], 1)
        return tl.zeros_like(total), tl.where(ok, total, 1.0)


@triton.jit
def sum_columns(tile, u_i, ok, LOG: tl.constexpr):
    """The same over rows."""
    if LOG:
        tile = tile + u_i[:, None]
        top = tl.max(tile, 0)
        return top, tl.where(ok, tl.sum(tl.exp2(tile - finite(top)[None, :]), 0), 1.0)
    else:
        total = tl.sum(tile * u_i[:, None], 0)
        return tl.zeros_like(total), tl.where(ok, total, 1.0)


@triton.jit
def solve_pairs(
    x, y, s, t, base_x, base_y, damping, active, in_lse, row_lse, column_lse, N, M, D, count,
    LOG: tl.constexpr, BALANCED: tl.constexpr,
    BN: tl.constexpr, BM: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr, INTERPRETED: tl.constexpr,
):  # fmt: skip
    """All iterations of one pair: grid (pairs).

    Args:
        x: (B, N, D) and y: (B, M, D) features; s: (B, N) and t: (B, M) factors.
        base_x: (B, N); base_y: (B, M); damping: (B,); active: (B,) int32.
        in_lse: (B, M) logarithms of the column sums to start from.
        row_lse: (B, N) and column_lse: (B, M), written.
        N: rows, at most BN. M: columns, at most BM. D: width. count: iterations, at least one.
    """
    pair = tl.program_id(0).to(tl.int64)
    if tl.load(active + pair) == 0:
        return
    i, j = tl.arange(0, BN), tl.arange(0, BM)
    i_ok, j_ok = i < N, j < M
    at_i, at_j = pair * N + i, pair * M + j
    x, y = x + pair * N * D, y + pair * M * D
    tile = inner_tile(x, y, s + pair * N, t + pair * M, i, j, i_ok, j_ok, D, BN, BM, BK, PRECISION, INTERPRETED)
    nothing: tl.constexpr = -float("inf") if LOG else 0.0
    base_i = tl.load(base_x + at_i, mask=i_ok, other=nothing)
    base_j = tl.load(base_y + at_j, mask=j_ok, other=nothing)
    damp = tl.load(damping + pair)
    top_j = tl.load(in_lse + at_j, mask=j_ok, other=0.0)
    total_j = tl.full((BM,), 1.0, tl.float32)
    if not LOG:
        tile = tl.exp2(tile)
        total_j = tl.exp2(top_j)
    top_i = tl.zeros((BN,), tl.float32)
    total_i = tl.full((BN,), 1.0, tl.float32)
    for _ in range(0, count):
        top_i, total_i = sum_rows(tile, weigh(base_j, top_j, total_j, damp, LOG, BALANCED), i_ok, LOG)
        top_j, total_j = sum_columns(tile, weigh(base_i, top_i, total_i, damp, LOG, BALANCED), j_ok, LOG)
    if LOG:
        tl.store(row_lse + at_i, top_i + tl.log2(total_i), mask=i_ok)
        tl.store(column_lse + at_j, top_j + tl.log2(total_j), mask=j_ok)
    else:
        tl.store(row_lse + at_i, tl.log2(total_i), mask=i_ok)
        tl.store(column_lse + at_j, tl.log2(total_j), mask=j_ok)
