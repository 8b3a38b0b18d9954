"""What every transport backend must do, in every domain it has. A new backend joins by one line in CONFIGURATIONS.

Triton's backends take the place of the others in a process with TRITON_INTERPRET=1, which
``tests/unit/transport/test_triton.py`` starts.
"""

import numpy as np
import pytest
import torch

from optical_scale.transport import native, sinkhorn_cost, solve
from optical_scale.transport.reference import as_array, cost_matrix, exact_cost, pot_entropic_plan, sinkhorn_plan
from optical_scale.transport.triton.support import interpreted
from tests.unit.transport.problems import crop, ragged_tokens

CONFIGURATIONS = [("dense", "exp"), ("dense", "log"), ("streamed", "exp"), ("blockwise", "exp"), ("blockwise", "log")]
if interpreted():
    TIERS = ("triton_pairs", "triton_stored", "triton_tiles")
    CONFIGURATIONS = [(tier, domain) for tier in TIERS for domain in ("exp", "log")]
# In these the exponential domain is for costs without additive terms, and for epsilon from twice as large.
PLAIN = ("blockwise", "triton_pairs", "triton_stored", "triton_tiles")
backends = pytest.mark.parametrize(("backend", "domain"), CONFIGURATIONS, ids=lambda value: str(value))
# The smallest epsilon each configuration promises for cosine costs.
SMALLEST = {"exp": 0.01, "log": 0.005}


@pytest.fixture(autouse=True, params=["compiled", "plain"])
def sweeps(request, monkeypatch):
    """Everything holds with the compiled sweeps and without them."""
    if interpreted():
        if request.param == "plain":
            pytest.skip("the kernels have no use for the compiled sweeps")
    elif request.param == "plain":
        monkeypatch.setattr(native, "sweeps", lambda: None)
    elif native.sweeps() is None:
        pytest.skip("no C compiler")


def few(iterations):
    """The interpreter takes milliseconds for an iteration, and what is tested here does not depend on their number."""
    return min(iterations, 4) if interpreted() else iterations


def patient():
    """Hundreds of iterations are for backends that take microseconds for one; the interpreter takes milliseconds."""
    if interpreted():
        pytest.skip("too slow in the interpreter")


def tokens():
    return ragged_tokens([9, 4, 1], [3, 7, 5])


@backends
@pytest.mark.parametrize("epsilon", [0.005, 0.01, 0.02, 0.1, 1.0])
@pytest.mark.parametrize("iterations", [1, few(10)])
def test_plan_equals_the_float64_reference_at_any_iteration_count(backend, domain, epsilon, iterations):
    if epsilon < SMALLEST[domain] * (2 if domain == "exp" and backend in PLAIN else 1):
        pytest.skip("below what this configuration promises")
    batch = tokens()
    out = solve(*batch, epsilon=epsilon, iterations=iterations, backend=backend, domain=domain)
    plan_BNM = as_array(out.plan())
    for pair in range(3):
        x, y = crop(batch, pair)
        cost = cost_matrix(x[0], y[0], "cosine")
        a, b = np.full(len(cost), 1 / len(cost)), np.full(cost.shape[1], 1 / cost.shape[1])
        expected = sinkhorn_plan(cost, a, b, epsilon, iterations)
        # The kernel magnifies the rounding of a cosine, 6e-8, by 1 / epsilon.
        tolerance = 3e-7 / min(epsilon, 0.1)
        n, m = expected.shape
        np.testing.assert_allclose(plan_BNM[pair, :n, :m], expected, atol=tolerance * expected.max(), rtol=0)
        assert plan_BNM[pair, n:].sum() == plan_BNM[pair, :, m:].sum() == 0
        assert out.primal_cost()[pair].item() == pytest.approx((expected * cost).sum(), rel=tolerance, abs=1e-6)


@backends
@pytest.mark.parametrize("rho", [None, 0.2])
def test_plan_equals_pot_at_convergence(backend, domain, rho):
    patient()
    batch = tokens()
    out = solve(*batch, epsilon=0.05, iterations=1000, rho=rho, backend=backend, domain=domain)
    for pair in range(3):
        x, y = crop(batch, pair)
        cost = cost_matrix(x[0], y[0], "cosine")
        a, b = np.full(len(cost), 1 / len(cost)), np.full(cost.shape[1], 1 / cost.shape[1])
        expected = pot_entropic_plan(cost, a, b, 0.05, rho)
        n, m = expected.shape
        np.testing.assert_allclose(as_array(out.plan()[pair, :n, :m]), expected, atol=2e-5 * expected.max(), rtol=0)
        if rho is None:
            assert out.primal_cost()[pair] >= exact_cost(cost, a, b) - 1e-6


@backends
def test_marginals_are_met_and_zero_masses_get_nothing(backend, domain):
    patient()
    batch = tokens()
    a_BN = batch.mask_x_BN * torch.tensor([0.5, 0.0, 2.0, 1.0, 1.0, 0.0, 3.0, 1.0, 1.0])
    b_BM = batch.mask_y_BM * torch.tensor([1.0, 0.0, 4.0, 1.0, 0.0, 1.0, 2.0])
    a_BN, b_BM = a_BN / a_BN.sum(1, keepdim=True), b_BM / b_BM.sum(1, keepdim=True)
    out = solve(*batch, marginal_x=a_BN, marginal_y=b_BM, epsilon=0.05, iterations=500, backend=backend, domain=domain)
    plan_BNM = out.plan()
    torch.testing.assert_close(plan_BNM.sum(2), a_BN, atol=1e-5, rtol=0)
    torch.testing.assert_close(plan_BNM.sum(1), b_BM, atol=1e-5, rtol=0)
    assert (plan_BNM.sum(2)[a_BN == 0] == 0).all()
    assert (out.f_BN[a_BN == 0] == 0).all()
    assert (out.marginal_error_B < 1e-5).all()
    assert out.converged_B.all()


@backends
def test_zero_mass_equals_removal(backend, domain):
    batch = ragged_tokens([6, 6], [5, 5])
    a_BN = torch.tensor([[1.0, 0, 1, 1, 0, 1]] * 2) / 4
    kept = a_BN[0] > 0
    common = {"epsilon": 0.03, "iterations": few(7), "backend": backend, "domain": domain}
    whole = solve(*batch, marginal_x=a_BN, **common)
    fewer = solve(batch.x_BND[:, kept], batch.y_BMD, **common)
    torch.testing.assert_close(whole.f_BN[:, kept], fewer.f_BN, atol=2e-6, rtol=0)
    torch.testing.assert_close(whole.primal_cost(), fewer.primal_cost(), atol=2e-6, rtol=0)


@backends
def test_padding_cropping_and_permutation_change_nothing(backend, domain):
    batch = tokens()
    common = {"epsilon": 0.02, "iterations": few(10), "backend": backend, "domain": domain}
    whole = solve(*batch, **common)
    order = torch.tensor([4, 0, 8, 2, 6, 1, 3, 5, 7])
    shuffled = solve(batch.x_BND[:, order], batch.y_BMD, batch.mask_x_BN[:, order], batch.mask_y_BM, **common)
    torch.testing.assert_close(shuffled.f_BN, whole.f_BN[:, order], atol=2e-6, rtol=0)
    torch.testing.assert_close(shuffled.primal_cost(), whole.primal_cost(), atol=2e-6, rtol=0)
    for pair in range(3):
        alone = solve(*crop(batch, pair), **common)
        torch.testing.assert_close(alone.f_BN[0], whole.f_BN[pair][batch.mask_x_BN[pair]], atol=2e-6, rtol=0)
        torch.testing.assert_close(alone.primal_cost()[0], whole.primal_cost()[pair], atol=2e-6, rtol=0)


@backends
@pytest.mark.parametrize("cost", ["cosine", "sqeuclidean", "dot"])
@pytest.mark.parametrize("rho", [None, 0.5])
def test_gradient_equals_autograd_of_the_detached_plan(backend, domain, cost, rho):
    if backend in PLAIN and domain == "exp" and cost == "sqeuclidean":
        pytest.skip("additive costs are a matter of the log domain")
    batch = tokens()
    # Short vectors: within the exponential domain's range for unbounded costs too.
    x_BND, y_BMD = (0.3 * t for t in batch[:2])
    x_BND.requires_grad_()
    y_BMD.requires_grad_()
    weight_B = torch.tensor([1.0, -2.0, 0.5])
    settings = {"epsilon": 0.1, "iterations": few(15), "cost": cost, "rho": rho, "backend": backend, "domain": domain}
    result = sinkhorn_cost(x_BND, y_BMD, *batch[2:], **settings)
    got = torch.autograd.grad((weight_B * result.cost_B).sum(), (x_BND, y_BMD))
    plan_BNM = solve(x_BND, y_BMD, *batch[2:], **settings).plan()
    x, y = x_BND.nan_to_num(), y_BMD.nan_to_num()
    if cost == "sqeuclidean":
        cost_BNM = (x[:, :, None] - y[:, None]).square().sum(-1)
    elif cost == "dot":
        cost_BNM = -x @ y.mT
    else:
        cost_BNM = 1 - torch.nn.functional.normalize(x, dim=-1) @ torch.nn.functional.normalize(y, dim=-1).mT
    expected_B = (plan_BNM * cost_BNM).sum((1, 2))
    torch.testing.assert_close(result.cost_B, expected_B, atol=2e-6, rtol=1e-5)
    expected = torch.autograd.grad((weight_B * expected_B).sum(), (x_BND, y_BMD))
    for mine, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=3e-6, rtol=1e-5)


@backends
@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e30])
def test_cosine_ignores_lengths(backend, domain, scale):
    batch = tokens()
    common = {"epsilon": 0.02, "iterations": few(5), "backend": backend, "domain": domain}
    plain = sinkhorn_cost(*batch, **common)
    y_BMD = (batch.y_BMD * scale).requires_grad_()
    scaled = sinkhorn_cost(batch.x_BND, y_BMD, *batch[2:], **common)
    torch.testing.assert_close(scaled.cost_B, plain.cost_B, atol=5e-6, rtol=0)
    scaled.cost_B.sum().backward()
    assert torch.isfinite(y_BMD.grad).all()


@backends
def test_identical_and_zero_vectors_are_finite(backend, domain):
    x_BND = torch.ones(2, 5, 4)
    x_BND[1] = 0
    y_BMD = torch.ones(2, 3, 4, requires_grad=True)
    result = sinkhorn_cost(x_BND, y_BMD, epsilon=0.02, backend=backend, domain=domain)
    result.cost_B.sum().backward()
    torch.testing.assert_close(result.cost_B, torch.tensor([0.0, 1.0]), atol=5e-6, rtol=0)
    torch.testing.assert_close(result.effective_matches_B, torch.tensor([3.0, 3.0]), atol=1e-3, rtol=0)
    assert y_BMD.grad.abs().max() < 1e-6


@backends
def test_two_runs_are_bitwise_equal(backend, domain):
    batch = tokens()
    y_BMD = batch.y_BMD.clone().requires_grad_()
    runs = []
    for _ in range(2):
        cost_B = sinkhorn_cost(
            batch.x_BND, y_BMD, *batch[2:], iterations=few(50), backend=backend, domain=domain
        ).cost_B
        runs.append((cost_B, *torch.autograd.grad(cost_B.sum(), y_BMD)))
    assert torch.equal(runs[0][0], runs[1][0])
    assert torch.equal(runs[0][1], runs[1][1])


@backends
def test_tolerance_freezes_each_pair_on_its_own(backend, domain):
    patient()
    batch = tokens()
    common = {"epsilon": 0.05, "iterations": 400, "tolerance": 1e-4, "backend": backend, "domain": domain}
    whole = solve(*batch, **common)
    assert whole.converged_B.all()
    assert (whole.marginal_error_B <= 1e-4).all()
    assert whole.iterations_B.max() < 400
    assert len(set(whole.iterations_B.tolist())) > 1
    for pair in range(3):
        alone = solve(*(t[pair : pair + 1] for t in batch), **common)
        assert alone.iterations_B[0] == whole.iterations_B[pair]
        torch.testing.assert_close(alone.f_BN[0], whole.f_BN[pair], atol=1e-6, rtol=0)
