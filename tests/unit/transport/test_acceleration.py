import pytest
import torch

from optical_scale.transport import choose, solve
from tests.unit.transport.problems import ragged_tokens

BACKENDS = [("dense", "exp"), ("dense", "log"), ("streamed", "exp"), ("blockwise", "exp"), ("blockwise", "log")]


@pytest.mark.parametrize(("backend", "domain"), BACKENDS)
def test_over_relaxation_needs_fewer_iterations_for_the_same_plan(backend, domain):
    batch = ragged_tokens([9, 12], [10, 11])
    common = {"epsilon": 0.05, "tolerance": 1e-4, "iterations": 2000, "backend": backend, "domain": domain}
    plain, relaxed = (solve(*batch, relaxation=relaxation, **common) for relaxation in (1.0, 1.5))
    assert relaxed.converged_B.all()
    assert relaxed.iterations_B.max() < plain.iterations_B.max()
    torch.testing.assert_close(relaxed.plan(), plain.plan(), atol=1e-4, rtol=0)
    torch.testing.assert_close(relaxed.plan().sum(1), relaxed.problem.b_BM, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("backend", "domain"), BACKENDS)
def test_warm_start_continues_where_the_last_solve_stopped(backend, domain):
    batch = ragged_tokens([9, 4], [5, 7])
    common = {"epsilon": 0.05, "backend": backend, "domain": domain}
    whole, half = (solve(*batch, iterations=count, **common) for count in (12, 6))
    again = solve(*batch, iterations=6, start=(half.f_BN, half.g_BM), **common)
    torch.testing.assert_close(again.f_BN, whole.f_BN, atol=1e-6, rtol=0)


def test_schedule_is_counted_and_helps_at_small_epsilon():
    batch = ragged_tokens([40], [40])
    plain = solve(*batch, epsilon=0.005, iterations=30)
    scheduled = solve(*batch, epsilon=0.005, iterations=24, schedule=(32.0, 16.0, 8.0, 4.0, 2.0, 2.0))
    assert scheduled.iterations_B.item() == 30
    assert scheduled.marginal_error_B < plain.marginal_error_B


@pytest.mark.parametrize("cost", ["cosine", "sqeuclidean", "dot"])
@pytest.mark.parametrize("backend", ["dense", "streamed", "blockwise"])
@pytest.mark.parametrize("epsilon", [2.0, 0.005])
def test_stages_that_share_their_products_take_the_same_way(monkeypatch, cost, backend, epsilon):
    if backend == "streamed" and epsilon < 0.1:
        pytest.skip("streamed has no log domain")
    batch = ragged_tokens([7, 5], [6, 4])
    options = {"epsilon": epsilon, "iterations": 1, "schedule": (8.0, 4.0, 2.0, 2.0), "cost": cost, "backend": backend}
    shared = solve(*batch, **options)
    assert shared.problem.geometry.products_BNM is None, "what a solution keeps is no larger"
    # The same by hand: each stage starts from the potentials of the one before.
    start = None
    for factor, count in ((8.0, 1), (4.0, 1), (2.0, 2), (1.0, 1)):
        changed = {"epsilon": epsilon * factor, "iterations": count, "start": start, "schedule": ()}
        found = solve(*batch, **options | changed)
        start = found.f_BN, found.g_BM
    torch.testing.assert_close(shared.f_BN, found.f_BN, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(shared.g_BM, found.g_BM, atol=2e-6, rtol=1e-5)
    monkeypatch.setattr(choose, "STORED_BYTES", 8)
    apart = solve(*batch, **options)
    torch.testing.assert_close(shared.f_BN, apart.f_BN, atol=2e-6, rtol=1e-5)
