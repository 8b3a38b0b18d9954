"""The kernels of the long tiers: half an iteration, the stored kernel and its sweep, and the plan applied to values.

Every sum over the other side is taken by one program in a fixed order, or as PARTS partial sums that the reader adds in
a fixed order: no atomics, so two runs agree in every bit. A pair whose flag in ``active`` is zero is left untouched.

Arguments that every kernel shares: x (B, N, D) and y (B, M, D) features with factors s (B, N) and t (B, M); base of a
side; damping (B,); active (B,) int32; sums as maxima ``*_tops`` (only with LOG) and ``*_totals``, with a leading axis
of programs that computed a part each. B pairs, N rows, M columns, D width.
"""

import triton
import triton.language as tl

from optical_scale.transport.triton.tiles import (
    finite,
    inner_tile,
    load_columns,
    load_rows,
    load_weights,
    product,
    stored_tile,
    weigh,
)


@triton.jit
def half_step(
    x, y, s, t, base, damping, stored, active, in_tops, in_totals, out_tops, out_totals,
    B, N, M, D, stride_i, stride_j, span,
    PARTS: tl.constexpr, LOG: tl.constexpr, BALANCED: tl.constexpr, STORED: tl.constexpr, RESIDENT: tl.constexpr,
    BN: tl.constexpr, BM: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr, INTERPRETED: tl.constexpr,
):  # fmt: skip
    """Sums of a block of rows over ``span`` columns: grid (pairs x row blocks, column parts).

    Called for rows with (x, y), and for columns with the two sides exchanged.

    x, s: (B, N, D) and (B, N) of the side summed for; y, t, base: of the other side, whose last sums are ``in_*``
    (PARTS, B, M). ``out_*`` (parts, B, N) are written. stored: (B, N, M) with the strides given, read only if STORED.
    """
    blocks = tl.cdiv(N, BN)
    pair = tl.program_id(0) // blocks
    part = tl.program_id(1)
    if tl.load(active + pair) == 0:
        return
    pair64 = pair.to(tl.int64)
    x, y, stored = x + pair64 * N * D, y + pair64 * M * D, stored + pair64 * N * M
    s, t, base = s + pair64 * N, t + pair64 * M, base + pair64 * M
    in_tops, in_totals = in_tops + pair64 * M, in_totals + pair64 * M
    i = (tl.program_id(0) % blocks) * BN + tl.arange(0, BN)
    i_ok = i < N
    damp = tl.load(damping + pair)
    s_i = tl.load(s + i, mask=i_ok, other=0.0)
    k = tl.arange(0, BK)
    if RESIDENT:
        x_ik = load_rows(x, i, i_ok, k, D)
    top = tl.full((BN,), -float("inf"), tl.float32)
    total = tl.zeros((BN,), tl.float32)
    for start in range(part * span, tl.minimum(M, (part + 1) * span), BM):
        j = start + tl.arange(0, BM)
        j_ok = j < M
        w_j = load_weights(base, in_tops, in_totals, j, j_ok, B.to(tl.int64) * M, damp, PARTS, LOG, BALANCED)
        if STORED:
            tile = stored_tile(stored, i, j, i_ok, j_ok, stride_i, stride_j)
        elif RESIDENT:
            acc = tl.zeros((BN, BM), tl.float32)
            acc = product(x_ik, load_columns(y, j, j_ok, k, D), acc, PRECISION, INTERPRETED)
            tile = acc * s_i[:, None] * tl.load(t + j, mask=j_ok, other=0.0)[None, :]
        else:
            tile = inner_tile(x, y, s, t, i, j, i_ok, j_ok, D, BN, BM, BK, PRECISION, INTERPRETED)
        if LOG:
            tile += w_j[None, :]
            new_top = tl.maximum(top, tl.max(tile, 1))
            total = total * tl.exp2(top - finite(new_top)) + tl.sum(tl.exp2(tile - finite(new_top)[:, None]), 1)
            top = new_top
        elif STORED:
            total += tl.sum(tile * w_j[None, :], 1)
        else:
            total += tl.sum(tl.exp2(tile) * w_j[None, :], 1)
    out = (part.to(tl.int64) * B + pair) * N + i
    tl.store(out_totals + out, total, mask=i_ok)
    if LOG:
        tl.store(out_tops + out, top, mask=i_ok)


@triton.jit
def build(
    x, y, s, t, stored, N, M, D,
    LOG: tl.constexpr, BN: tl.constexpr, BM: tl.constexpr, BK: tl.constexpr,
    PRECISION: tl.constexpr, INTERPRETED: tl.constexpr,
):  # fmt: skip
    """Store ``2^inner`` in the dtype of ``stored``, or ``inner`` with LOG: grid (pairs x row blocks, column blocks)."""
    blocks = tl.cdiv(N, BN)
    pair = (tl.program_id(0) // blocks).to(tl.int64)
    i = (tl.program_id(0) % blocks) * BN + tl.arange(0, BN)
    j = tl.program_id(1) * BM + tl.arange(0, BM)
    i_ok, j_ok = i < N, j < M
    x, y = x + pair * N * D, y + pair * M * D
    tile = inner_tile(x, y, s + pair * N, t + pair * M, i, j, i_ok, j_ok, D, BN, BM, BK, PRECISION, INTERPRETED)
    if not LOG:
        tile = tl.exp2(tile)
    at = pair * N * M + i.to(tl.int64)[:, None] * M + j[None, :]
    tl.store(stored + at, tile.to(stored.dtype.element_ty), mask=i_ok[:, None] & j_ok[None, :])


@triton.jit
def sweep(
    stored, base_x, base_y, damping, active, in_tops, in_totals, row_tops, row_totals, out_tops, out_totals,
    B, N, M, rows, count,
    PANELS: tl.constexpr, PARTS: tl.constexpr, LOG: tl.constexpr, BALANCED: tl.constexpr,
    R: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """Whole iterations that read the stored kernel once each: grid (pairs x PANELS).

    A row's weight is known once the row has been summed, so the same R x M values, still in registers, feed the column
    sums. With one panel a program owns its pair and runs all ``count`` iterations; otherwise count is one and each
    panel leaves its part of the column sums.

    stored: (B, N, M). ``in_*`` (PARTS, B, M) are the last column sums; ``row_*`` (B, N), ``out_*`` (PANELS, B, M) are
    written. rows: of one panel, a multiple of R.
    """
    pair, panel = tl.program_id(0) // PANELS, tl.program_id(0) % PANELS
    if tl.load(active + pair) == 0:
        return
    pair64 = pair.to(tl.int64)
    stored += pair64 * N * M
    j = tl.arange(0, BM)
    j_ok = j < M
    damp = tl.load(damping + pair)
    stride = B.to(tl.int64) * M
    at_j = pair64 * M + j
    w_j = load_weights(base_y, in_tops, in_totals, at_j, j_ok, stride, damp, PARTS, LOG, BALANCED)
    base_j = tl.load(base_y + at_j, mask=j_ok, other=-float("inf") if LOG else 0.0)
    top_j = tl.zeros((BM,), tl.float32)
    total_j = tl.zeros((BM,), tl.float32)
    for iteration in range(0, count):
        if iteration > 0:
            w_j = weigh(base_j, top_j, tl.where(j_ok, total_j, 1.0), damp, LOG, BALANCED)
        total_j = tl.zeros((BM,), tl.float32)
        if LOG:
            top_j = tl.full((BM,), -float("inf"), tl.float32)
        for start in range(panel * rows, tl.minimum(N, (panel + 1) * rows), R):
            i = start + tl.arange(0, R)
            i_ok = i < N
            at_i = pair64 * N + i
            tile = stored_tile(stored, i, j, i_ok, j_ok, M, 1)
            base_i = tl.load(base_x + at_i, mask=i_ok, other=-float("inf") if LOG else 0.0)
            if LOG:
                row_top = tl.max(tile + w_j[None, :], 1)
                row_total = tl.sum(tl.exp2(tile + w_j[None, :] - finite(row_top)[:, None]), 1)
                row_total = tl.where(i_ok, row_total, 1.0)
                tile += weigh(base_i, row_top, row_total, damp, LOG, BALANCED)[:, None]
                new_top = tl.maximum(top_j, tl.max(tile, 0))
                total_j *= tl.exp2(top_j - finite(new_top))
                total_j += tl.sum(tl.exp2(tile - finite(new_top)[None, :]), 0)
                top_j = new_top
                tl.store(row_tops + at_i, row_top, mask=i_ok)
            else:
                row_total = tl.where(i_ok, tl.sum(tile * w_j[None, :], 1), 1.0)
                u_i = weigh(base_i, 0.0, row_total, damp, LOG, BALANCED)
                total_j += tl.sum(tile * u_i[:, None], 0)
            tl.store(row_totals + at_i, row_total, mask=i_ok)
    out = (panel.to(tl.int64) * B + pair) * M + j
    tl.store(out_totals + out, total_j, mask=j_ok)
    if LOG:
        tl.store(out_tops + out, top_j, mask=j_ok)


@triton.jit
def merge(
    active, tops, totals, out_tops, out_totals, B, T,
    PARTS: tl.constexpr, LOG: tl.constexpr, BT: tl.constexpr,
):  # fmt: skip
    """Add PARTS partial sums of (PARTS, B, T) in a fixed order: grid (pairs x token blocks)."""
    blocks = tl.cdiv(T, BT)
    pair = tl.program_id(0) // blocks
    if tl.load(active + pair) == 0:
        return
    t = (tl.program_id(0) % blocks) * BT + tl.arange(0, BT)
    ok = t < T
    at = pair.to(tl.int64) * T + t
    stride = B.to(tl.int64) * T
    top = tl.full((BT,), -float("inf"), tl.float32)
    if LOG:
        for part in range(PARTS):
            top = tl.maximum(top, tl.load(tops + part * stride + at, mask=ok, other=0.0))
        tl.store(out_tops + at, top, mask=ok)
    total = tl.zeros((BT,), tl.float32)
    for part in range(PARTS):
        more = tl.load(totals + part * stride + at, mask=ok, other=1.0)
        if LOG:
            more *= tl.exp2(tl.load(tops + part * stride + at, mask=ok, other=0.0) - finite(top))
        total += more
    tl.store(out_totals + at, total, mask=ok)


@triton.jit
def apply(
    x, y, s, t, u, v, stored, values, factors, out, mass, N, M, D, E, stride_i, stride_j,
    LOG: tl.constexpr, STORED: tl.constexpr, SPLIT: tl.constexpr, FACTORS: tl.constexpr,
    BN: tl.constexpr, BM: tl.constexpr, BK: tl.constexpr, BE: tl.constexpr,
    PRECISION: tl.constexpr, INTERPRETED: tl.constexpr,
):  # fmt: skip
    """``P values`` and the row sums of P: grid (pairs x row blocks, blocks of E), P formed a tile at a time.

    u: (B, N) and v: (B, M) are logarithms, ``P = 2^(inner + u + v)``. stored: (B, N, M) with the strides given, if
    STORED. values: (B, M, E), their rows multiplied by factors (B, M) if FACTORS. out: (B, N, E) and mass: (B, N).
    """
    blocks = tl.cdiv(N, BN)
    pair = (tl.program_id(0) // blocks).to(tl.int64)
    i = (tl.program_id(0) % blocks) * BN + tl.arange(0, BN)
    e = tl.program_id(1) * BE + tl.arange(0, BE)
    i_ok = i < N
    x, y, stored = x + pair * N * D, y + pair * M * D, stored + pair * N * M
    s, t, u, v, factors = s + pair * N, t + pair * M, u + pair * N, v + pair * M, factors + pair * M
    u_i = tl.load(u + i, mask=i_ok, other=-float("inf"))
    acc = tl.zeros((BN, BE), tl.float32)
    sums = tl.zeros((BN,), tl.float32)
    for start in range(0, M, BM):
        j = start + tl.arange(0, BM)
        j_ok = j < M
        v_j = tl.load(v + j, mask=j_ok, other=-float("inf"))
        if STORED:
            tile = stored_tile(stored, i, j, i_ok, j_ok, stride_i, stride_j)
        else:
            tile = inner_tile(x, y, s, t, i, j, i_ok, j_ok, D, BN, BM, BK, PRECISION, INTERPRETED)
        if STORED and not LOG:
            plan = tile * tl.exp2(u_i)[:, None] * tl.exp2(v_j)[None, :]
        else:
            plan = tl.exp2(tile + u_i[:, None] + v_j[None, :])
        sums += tl.sum(plan, 1)
        if FACTORS:
            plan *= tl.load(factors + j, mask=j_ok, other=0.0)[None, :]
        values_je = load_rows(values + pair * M * E, j, j_ok, e, E)
        if SPLIT:
            # Two bfloat16 terms carry 16 bits of the plan: its rounding would otherwise show in <P, C>.
            high = plan.to(tl.bfloat16)
            acc = product(high, values_je, acc, PRECISION, INTERPRETED)
            low = (plan - high.to(tl.float32)).to(tl.bfloat16)
            acc = product(low, values_je, acc, PRECISION, INTERPRETED)
        else:
            acc = product(plan, values_je, acc, PRECISION, INTERPRETED)
    at = pair * N * E + i[:, None] * E + e[None, :]
    tl.store(out + at, acc, mask=i_ok[:, None] & (e < E)[None, :])
    if tl.program_id(1) == 0:
        tl.store(mass + pair * N + i, sums, mask=i_ok)
