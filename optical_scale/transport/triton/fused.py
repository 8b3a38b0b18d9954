"""The whole of a short pair in one launch: norms, cosines, all iterations, what is reported, and both gradients.

Nothing but the vectors is read and nothing but the gradients and a few numbers per token is written, so what a batch of
short pairs costs is one pass over its vectors for each use and the chain of reductions. Balanced plans, cosine cost.

In-kernel notation: vectors of extreme length are first multiplied by powers of two (``grow``), which is exact and keeps
every square in range; ``r`` is one over the length after that, so a unit vector is ``x grow r``.
"""

import triton
import triton.language as tl

from optical_scale.transport.triton.pairs import sum_columns, sum_rows
from optical_scale.transport.triton.tiles import load_columns, load_rows, product, weigh

_LN2: tl.constexpr = tl.constexpr(0.6931471805599453)


@triton.jit
def powers(x, i, ok, D, BT: tl.constexpr, BK: tl.constexpr):
    """Powers of two (BT,) that bring the largest entry of each vector into [1, 2)."""
    top = tl.zeros((BT,), tl.float32)
    for start in range(0, D, BK):
        tile = load_rows(x, i, ok, start + tl.arange(0, BK), D).to(tl.float32)
        top = tl.maximum(top, tl.max(tl.abs(tile), 1))
    # The exponent's field, mirrored; the largest exponents would leave float32's range and keep a factor above one.
    field = (top.to(tl.int32, bitcast=True) >> 23) & 255
    return (tl.maximum(254 - field, 1) << 23).to(tl.float32, bitcast=True)


@triton.jit
def inverse_root(squares):
    """One over the square root, zero for zero."""
    return tl.where(squares > 0.0, 1.0 / tl.sqrt(tl.where(squares > 0.0, squares, 1.0)), 0.0)


@triton.jit
def cosines(
    x, y, i, j, i_ok, j_ok, grow_i, grow_j, D,
    BN: tl.constexpr, BM: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr, INTERPRETED: tl.constexpr,
):  # fmt: skip
    """Cosines (BN, BM), and the squared lengths of the grown vectors."""
    dtype: tl.constexpr = x.dtype.element_ty
    acc = tl.zeros((BN, BM), tl.float32)
    squares_i = tl.zeros((BN,), tl.float32)
    squares_j = tl.zeros((BM,), tl.float32)
    for start in range(0, D, BK):
        k = start + tl.arange(0, BK)
        x_ik = load_rows(x, i, i_ok, k, D).to(tl.float32) * grow_i[:, None]
        y_kj = load_columns(y, j, j_ok, k, D).to(tl.float32) * grow_j[None, :]
        squares_i += tl.sum(x_ik * x_ik, 1)
        squares_j += tl.sum(y_kj * y_kj, 0)
        acc = product(x_ik.to(dtype), y_kj.to(dtype), acc, PRECISION, INTERPRETED)
    acc = acc * inverse_root(squares_i)[:, None] * inverse_root(squares_j)[None, :]
    return acc, squares_i, squares_j


@triton.jit
def outside(squares, ok):
    """How many squared lengths are near an end of float32's range, or NaN, or zero, which may have been more."""
    return tl.sum((ok & (((squares > 1e-18) & (squares < 1e18)) == 0)).to(tl.int32), 0)


@triton.jit
def load_masses(mass, mask, i, ok, GIVEN: tl.constexpr, MASKED: tl.constexpr):
    """Masses of tokens, given or uniform over those that exist, and which tokens have any."""
    if MASKED:
        ok = ok & (tl.load(mask + i, mask=ok, other=0) != 0)
    if GIVEN:
        masses = tl.load(mass + i, mask=ok, other=0.0)
    else:
        count = tl.maximum(tl.sum(ok.to(tl.float32), 0), 1.0)
        masses = tl.where(ok, 1.0 / count, 0.0)
    return masses, masses > 0.0


@triton.jit
def plogp(mass, other):
    """``mass ln other``, zero where there is no mass."""
    return tl.where(mass > 0.0, mass * tl.log2(tl.where(mass > 0.0, other, 1.0)) * _LN2, 0.0)


@triton.jit
def pull_back(
    plan, own, other, out, i, j, i_in, i_ok, j_ok, grow_i, grow_j, r_i, r_j, inner_i, D,
    BN: tl.constexpr, BM: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr, INTERPRETED: tl.constexpr,
):  # fmt: skip
    """Store ``-(P q - <p, P q> p) / |x|`` for own tokens i against others j, a block of the width at a time."""
    dtype: tl.constexpr = other.dtype.element_ty
    # Relative to a power of two near its largest entry, or the small entries of a plan would be lost in float16.
    weights = plan * r_j[None, :]
    top = tl.max(tl.max(weights, 1), 0)
    field = (top.to(tl.int32, bitcast=True) >> 23) & 255
    raised = (tl.minimum(tl.maximum(254 - field, 1), 253) << 23).to(tl.float32, bitcast=True)
    weights *= raised
    high = weights.to(dtype)
    if dtype != tl.float32:
        # A second term: the plan's rounding to 8 or 11 bits would otherwise show in the gradient.
        low = (weights - high.to(tl.float32)).to(dtype)
    for start in range(0, D, BK):
        k = start + tl.arange(0, BK)
        other_jk = (load_rows(other, j, j_ok, k, D).to(tl.float32) * grow_j[:, None]).to(dtype)
        acc = product(high, other_jk, tl.zeros((BN, BK), tl.float32), PRECISION, INTERPRETED)
        if dtype != tl.float32:
            acc = product(low, other_jk, acc, PRECISION, INTERPRETED)
        unit_ik = load_rows(own, i, i_ok, k, D).to(tl.float32) * (grow_i * r_i)[:, None]
        result = (unit_ik * inner_i[:, None] - acc / raised) * r_i[:, None] * grow_i[:, None]
        at = i[:, None] * D + k[None, :]
        tl.store(out + at, result.to(out.dtype.element_ty), mask=i_in[:, None] & (k < D)[None, :])


@triton.jit
def safe_cosines(
    x, y, i, j, i_ok, j_ok, D,
    BN: tl.constexpr, BM: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr, INTERPRETED: tl.constexpr,
):  # fmt: skip
    """Cosines of vectors of any length, and what makes them unit vectors: see the module."""
    grow_i, grow_j = tl.full((BN,), 1.0, tl.float32), tl.full((BM,), 1.0, tl.float32)
    tile, squares_i, squares_j = cosines(
        x, y, i, j, i_ok, j_ok, grow_i, grow_j, D, BN, BM, BK, PRECISION, INTERPRETED
    )  # fmt: skip
    # Vectors of extreme length take a second pass; all others are read once for their cosines.
    if outside(squares_i, i_ok) + outside(squares_j, j_ok) > 0:
        grow_i, grow_j = powers(x, i, i_ok, D, BN, BK), powers(y, j, j_ok, D, BM, BK)
        tile, squares_i, squares_j = cosines(
            x, y, i, j, i_ok, j_ok, grow_i, grow_j, D, BN, BM, BK, PRECISION, INTERPRETED
        )  # fmt: skip
    return tile, grow_i, grow_j, inverse_root(squares_i), inverse_root(squares_j)


@triton.jit
def iterate(tile, base_i, base_j, i_ok, j_ok, count, LOG: tl.constexpr, BN: tl.constexpr, BM: tl.constexpr):
    """All iterations, from potentials of zero, whose weights are the masses themselves: the last sums of both sides."""
    top_j = tl.zeros((BM,), tl.float32)
    total_j = tl.full((BM,), 1.0, tl.float32)
    top_i = tl.zeros((BN,), tl.float32)
    total_i = tl.full((BN,), 1.0, tl.float32)
    for _ in range(0, count):
        top_i, total_i = sum_rows(tile, weigh(base_j, top_j, total_j, 1.0, LOG, True), i_ok, LOG)
        top_j, total_j = sum_columns(tile, weigh(base_i, top_i, total_i, 1.0, LOG, True), j_ok, LOG)
    return top_i, total_i, top_j, total_j


@triton.jit
def store_report(report, stride, a_i, b_j, f_i, g_j, mass_i, inner_i, epsilon):
    """Primal and dual cost, marginal error and effective matches; equations as in ``output.summarise``."""
    total, of_columns = tl.sum(mass_i, 0), tl.sum(b_j * g_j, 0)
    primal = total - tl.sum(inner_i, 0)
    excess = epsilon * (total - tl.sum(a_i, 0) * tl.sum(b_j, 0))
    logs = (tl.sum(mass_i * f_i, 0) + of_columns - primal) / epsilon
    logs += tl.sum(plogp(mass_i, a_i), 0) + tl.sum(plogp(b_j, b_j), 0)
    entropy = (tl.sum(plogp(mass_i, mass_i), 0) - logs) / total
    tl.store(report, primal)
    tl.store(report + stride, tl.sum(a_i * f_i, 0) + of_columns - excess)
    tl.store(report + 2 * stride, tl.sum(tl.abs(mass_i - a_i), 0) / tl.sum(a_i, 0))
    tl.store(report + 3 * stride, tl.exp2(entropy / _LN2))


@triton.jit
def fused_pairs(
    x, y, mass_x, mass_y, mask_x, mask_y, ends_x, ends_y, f, g, report, grad_x, grad_y,
    B, N, M, D, unit, count,
    PACKED: tl.constexpr, GIVEN_X: tl.constexpr, GIVEN_Y: tl.constexpr, MASKED_X: tl.constexpr, MASKED_Y: tl.constexpr,
    NEEDS_X: tl.constexpr, NEEDS_Y: tl.constexpr, LOG: tl.constexpr,
    BN: tl.constexpr, BM: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr, INTERPRETED: tl.constexpr,
):  # fmt: skip
    """Solve one pair and differentiate its cost: grid (pairs).

    Args:
        x: (B, N, D), or if PACKED (X, D) with pair b at tokens ``ends_x[b]`` to ``ends_x[b + 1]``. y: the same.
        mass_x: (B, N) or (X,), read if GIVEN_X, else uniform. mask_x: the same shape, bytes, read if MASKED_X.
        f: potentials as masses are laid out, written. g: the same.
        report: (4, B) written: primal cost, dual cost, marginal error, effective matches.
        grad_x: as x, written if NEEDS_X. grad_y: the same.
        B: pairs. N, M: tokens at most, if not PACKED. D: width. unit: log2(e) / epsilon. count: iterations.
    """
    pair = tl.program_id(0)
    start_x, start_y = pair.to(tl.int64) * N, pair.to(tl.int64) * M
    if PACKED:
        start_x, start_y = tl.load(ends_x + pair), tl.load(ends_y + pair)
        N = (tl.load(ends_x + pair + 1) - start_x).to(tl.int32)
        M = (tl.load(ends_y + pair + 1) - start_y).to(tl.int32)
    i, j = tl.arange(0, BN), tl.arange(0, BM)
    i_in, j_in = i < N, j < M
    x, y, grad_x, grad_y = x + start_x * D, y + start_y * D, grad_x + start_x * D, grad_y + start_y * D
    a_i, i_ok = load_masses(mass_x + start_x, mask_x + start_x, i, i_in, GIVEN_X, MASKED_X)
    b_j, j_ok = load_masses(mass_y + start_y, mask_y + start_y, j, j_in, GIVEN_Y, MASKED_Y)
    tile, grow_i, grow_j, r_i, r_j = safe_cosines(x, y, i, j, i_ok, j_ok, D, BN, BM, BK, PRECISION, INTERPRETED)
    tile *= unit
    base_i, base_j = a_i, b_j
    if LOG:
        base_i, base_j = tl.log2(a_i), tl.log2(b_j)
    else:
        tile = tl.exp2(tile)
    top_i, total_i, top_j, total_j = iterate(tile, base_i, base_j, i_ok, j_ok, count, LOG, BN, BM)
    u_i, v_j = weigh(base_i, top_i, total_i, 1.0, LOG, True), weigh(base_j, top_j, total_j, 1.0, LOG, True)
    if LOG:
        plan = tl.exp2(tile + u_i[:, None] + v_j[None, :])
        matched = plan * (tile / unit)
    else:
        plan = tile * u_i[:, None] * v_j[None, :]
        matched = plan * (tl.log2(tile) / unit)
    f_i = tl.where(i_ok, 1.0 - (top_i + tl.log2(total_i)) / unit, 0.0)
    g_j = tl.where(j_ok, -(top_j + tl.log2(total_j)) / unit, 0.0)
    tl.store(f + start_x + i, f_i, mask=i_in)
    tl.store(g + start_y + j, g_j, mask=j_in)
    inner_i, inner_j = tl.sum(matched, 1), tl.sum(matched, 0)
    store_report(report + pair, B, a_i, b_j, f_i, g_j, tl.sum(plan, 1), inner_i, 1.0 / (unit * _LN2))
    if NEEDS_X:
        pull_back(
            plan, x, y, grad_x, i, j, i_in, i_ok, j_ok, grow_i, grow_j, r_i, r_j, inner_i, D,
            BN, BM, BK, PRECISION, INTERPRETED,
        )  # fmt: skip
    if NEEDS_Y:
        pull_back(
            tl.trans(plan), y, x, grad_y, j, i, j_in, j_ok, i_ok, grow_j, grow_i, r_j, r_i, inner_j, D,
            BM, BN, BK, PRECISION, INTERPRETED,
        )  # fmt: skip
