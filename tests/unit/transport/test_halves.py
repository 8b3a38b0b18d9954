import shutil

import pytest
import torch

from optical_scale.transport import halves, native, solve
from optical_scale.transport.dense import Streamed
from tests.unit.transport.problems import ragged_tokens

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")


def problem(N, M, spread=3.0, empty=()):
    torch.manual_seed(0)
    K_NM = torch.exp(spread * (2 * torch.rand(N, M) - 1))
    a_N, b_M = torch.rand(N) + 0.5, torch.rand(M) + 0.5
    for token in empty:
        a_N[token] = b_M[token] = 0.0
    return K_NM, a_N / a_N.sum(), b_M / b_M.sum()


def iterate(K_NM, a_N, b_M, count, *, split, power=1.0):
    u_N, v_M = torch.zeros_like(a_N), b_M.clone()
    cheap = halves.iterate_pair(K_NM, a_N, b_M, u_N, v_M, power, 1.0, count, halves=split)
    return u_N, v_M, cheap


def in_float64(K_NM, a_N, b_M, count, power=1.0):
    K_NM, a_N, b_M = K_NM.double(), a_N.double(), b_M.double()
    v_M = b_M
    for _ in range(count):
        u_N = a_N * (K_NM @ v_M) ** -power
        v_M = b_M * (K_NM.t() @ u_N) ** -power
    return u_N, v_M


@pytest.mark.parametrize("power", [1.0, 0.8])
@pytest.mark.parametrize("shape", [(64, 64), (70, 33), (5, 131), (131, 4), (67, 1)])
def test_halves_are_as_exact_as_floats_and_leave_the_kernel_as_it_was(shape, power):
    K_NM, a_N, b_M = problem(*shape, empty=[0] if min(shape) > 1 else [])
    before = K_NM.clone()
    u_N, v_M, cheap = iterate(K_NM, a_N, b_M, 60, split=True, power=power)
    assert cheap > 20
    assert torch.equal(K_NM, before)
    # What moves from u to v and back, rounding among it, changes no plan.
    plan_NM = u_N.double()[:, None] * before.double() * v_M.double()
    exact_u_N, exact_v_M = in_float64(before, a_N, b_M, 60, power)
    exact_NM = exact_u_N[:, None] * before.double() * exact_v_M
    torch.testing.assert_close(plan_NM, exact_NM, rtol=1e-6, atol=0)


def test_scalings_that_wander_off_are_noticed():
    # Two blocks that exchange little mass, and whose marginals disagree: many steps, each below the limit.
    K_NM, a_N, b_M = problem(64, 64, spread=0.1)
    K_NM[:32, 32:] *= 1e-2
    K_NM[32:, :32] *= 1e-2
    for block, disagrees in ((slice(32), 1 + 1e-5), (slice(32, 64), 1 - 1e-5)):
        b_M[block] *= a_N[block].sum() / b_M[block].sum() * disagrees
    before = K_NM.clone()
    u_N, v_M, cheap = iterate(K_NM, a_N, b_M, 200, split=True)
    _, _, never = iterate(before.clone(), a_N, b_M, 200, split=False)
    assert 0 < cheap < 50
    assert never == 0
    assert torch.equal(K_NM, before)
    exact_u_N, exact_v_M = in_float64(before, a_N, b_M, 200)
    plan_NM, exact_NM = u_N[:, None] * before * v_M, exact_u_N[:, None] * before.double() * exact_v_M
    assert (plan_NM.double() - exact_NM).abs().max() < 1e-5 * exact_NM.max()


def test_the_error_of_products_is_bounded_as_stated():
    K_NM, a_N, _ = problem(64, 96)
    v_M = torch.rand(96) + 0.1
    ratio_N, columns = torch.empty(64), native.Columns(96)
    exact = K_NM.double()

    def product(v, mode):
        columns.start()
        u_N = torch.empty(64)
        columns.sweep_halves(K_NM, a_N, v, u_N, ratio_N, 1.0, mode)
        return a_N.double() / u_N.double()

    product(v_M, native.Mode.SPLIT)
    assert (ratio_N > 1).all()
    assert (ratio_N < 1 + 2.0**-7).all()
    for moved in (2.0**-16, 2.0**-6):
        near_M = v_M * (1 + moved * (2 * torch.rand(96) - 1))
        true_N = exact @ near_M.double()
        error = ((product(near_M, native.Mode.HALVES) - true_N) / true_N).abs().max()
        assert error < moved * 2.0**-7 + 3e-7  # what float32 sums and divisions add
    product(v_M, native.Mode.JOIN)
    assert torch.equal(K_NM.double(), exact)


def test_a_large_pair_takes_this_way_on_any_number_of_threads(monkeypatch):
    batch = ragged_tokens([40, 33], [37, 40])
    expected = solve(*batch, epsilon=0.1, iterations=40, backend="dense")
    monkeypatch.setattr(halves, "_SETTLED", 1e-4)
    monkeypatch.setattr("optical_scale.transport.dense.LARGE", 1)
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            got = solve(*batch, epsilon=0.1, iterations=40, backend="streamed")
            assert isinstance(got.operators, Streamed)
            torch.testing.assert_close(got.f_BN, expected.f_BN, atol=1e-6, rtol=0)
            torch.testing.assert_close(got.g_BM, expected.g_BM, atol=1e-6, rtol=0)
            torch.testing.assert_close(got.plan(), expected.plan(), atol=1e-7, rtol=1e-5)
    finally:
        torch.set_num_threads(threads)
