"""Pieces that the kernels share: a tile of the scaled inner products, and the weights of tokens.

Notation of all kernels, in powers of two because the hardware's exponential is ``2^x``:

``inner_ij = s_i t_j <x_i, y_j>``, s already multiplied by ``scale log2(e) / epsilon``;
``lse_i = log2 sum_j 2^(inner_ij) w_j`` for the weights w of the other side;
``w_i = base_i 2^(-damping lse_i)`` with damping one in the balanced problem.

The cost's constant and its additive terms are in ``base`` (see ``operators.py``), so no kernel reads them. With LOG
weights and base are logarithms, minus infinity for tokens without mass, and sums carry a running maximum; otherwise
they are plain numbers, zero without mass, and sums have no maximum, because the caller has bounded ``inner``.
"""

import triton
import triton.language as tl


@triton.jit
def product(left, right, acc, PRECISION: tl.constexpr, INTERPRETED: tl.constexpr):
    """``acc + left right`` with float32 accumulation."""
    if INTERPRETED:
        # The interpreter multiplies the bit patterns of bfloat16 as integers.
        left = left.to(tl.float32)
        right = right.to(tl.float32)
    return tl.dot(left, right, acc, input_precision=PRECISION)


@triton.jit
def load_rows(x, i, ok, k, D):
    """Rows i of (T, D) features, columns k: a (len i, len k) tile with zeros outside."""
    return tl.load(x + i[:, None] * D + k[None, :], mask=ok[:, None] & (k < D)[None, :], other=0.0)


@triton.jit
def load_columns(y, j, ok, k, D):
    """The transposed tile, (len k, len j)."""
    return tl.load(y + j[None, :] * D + k[:, None], mask=ok[None, :] & (k < D)[:, None], other=0.0)


@triton.jit
def inner_tile(
    x, y, s, t, i, j, i_ok, j_ok, D,
    BN: tl.constexpr, BM: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr, INTERPRETED: tl.constexpr,
):  # fmt: skip
    """``inner`` of rows i and columns j, (BN, BM) float32."""
    acc = tl.zeros((BN, BM), tl.float32)
    for start in range(0, D, BK):
        k = start + tl.arange(0, BK)
        acc = product(load_rows(x, i, i_ok, k, D), load_columns(y, j, j_ok, k, D), acc, PRECISION, INTERPRETED)
    s_i = tl.load(s + i, mask=i_ok, other=0.0)
    t_j = tl.load(t + j, mask=j_ok, other=0.0)
    return acc * s_i[:, None] * t_j[None, :]


@triton.jit
def stored_tile(stored, i, j, i_ok, j_ok, stride_i, stride_j):
    """A tile of what ``build`` stored: ``2^inner``, or ``inner`` itself with LOG."""
    at = i.to(tl.int64)[:, None] * stride_i + j.to(tl.int64)[None, :] * stride_j
    return tl.load(stored + at, mask=i_ok[:, None] & j_ok[None, :], other=0.0).to(tl.float32)


@triton.jit
def finite(top):
    """A maximum that may be subtracted: zero where there was nothing to take a maximum of."""
    return tl.where(top == -float("inf"), 0.0, top)


@triton.jit
def weigh(base, top, total, damping, LOG: tl.constexpr, BALANCED: tl.constexpr):
    """Weights from base and the sum ``total 2^top``."""
    if LOG:
        lse = top + tl.log2(total)
        if BALANCED:
            weight = base - lse
        else:
            weight = base - damping * lse
    else:
        if BALANCED:
            weight = base / total
        else:
            weight = base * tl.exp2(-damping * tl.log2(total))
    return weight


@triton.jit
def add_part(tops, totals, at, ok, top, total, LOG: tl.constexpr):
    """One more partial sum added to ``total 2^top``."""
    more = tl.load(totals + at, mask=ok, other=1.0)
    if LOG:
        more_top = tl.load(tops + at, mask=ok, other=0.0)
        new_top = tl.maximum(top, more_top)
        total = total * tl.exp2(top - finite(new_top)) + more * tl.exp2(more_top - finite(new_top))
        top = new_top
    else:
        total += more
    return top, total


@triton.jit
def load_weights(
    base, tops, totals, t, ok, stride, damping,
    PARTS: tl.constexpr, LOG: tl.constexpr, BALANCED: tl.constexpr,
):  # fmt: skip
    """Weights of tokens t from sums that PARTS programs each computed a part of, added in a fixed order."""
    nothing: tl.constexpr = -float("inf") if LOG else 0.0
    base_t = tl.load(base + t, mask=ok, other=nothing)
    total = tl.load(totals + t, mask=ok, other=1.0)
    top = tl.zeros_like(total)
    if LOG:
        top = tl.load(tops + t, mask=ok, other=0.0)
    # Unrolled where the reader is a loop over tiles: only innermost loops have their loads pipelined.
    if PARTS <= 8:
        for part in tl.static_range(1, PARTS):
            top, total = add_part(tops, totals, part * stride + t, ok, top, total, LOG)
    else:
        for part in range(1, PARTS):
            top, total = add_part(tops, totals, part * stride + t, ok, top, total, LOG)
    return weigh(base_t, top, total, damping, LOG, BALANCED)
