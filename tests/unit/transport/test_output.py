import numpy as np
import pytest
import torch

from optical_scale.errors import TransportError
from optical_scale.transport import solve
from optical_scale.transport.reference import as_array, cost_matrix
from tests.unit.transport.problems import crop, ragged_tokens


@pytest.mark.parametrize("rho", [None, 0.3])
@pytest.mark.parametrize("backend", ["dense", "blockwise"])
@pytest.mark.parametrize("cost", ["cosine", "sqeuclidean"])
def test_lazy_quantities_equal_their_definitions(rho, backend, cost):
    batch = ragged_tokens([6, 4], [3, 5], width=4)
    # Short enough for squared distances to converge at this epsilon.
    batch = batch._replace(x_BND=0.3 * batch.x_BND, y_BMD=0.3 * batch.y_BMD)
    epsilon = 0.2
    out = solve(*batch, epsilon=epsilon, rho=rho, iterations=300, backend=backend, cost=cost)
    for pair in range(2):
        x, y = crop(batch, pair)
        n, m = x.shape[1], y.shape[1]
        P, C = as_array(out.plan()[pair, :n, :m]), cost_matrix(x[0], y[0], cost)
        a, b = np.full(n, 1 / n), np.full(m, 1 / m)

        def kl(p, q):
            return (p * np.log(np.maximum(p, 1e-300) / q) - p + q).sum()

        primal = (P * C).sum()
        entropic = primal + epsilon * kl(P, a[:, None] * b)
        if rho is not None:
            entropic += rho * (kl(P.sum(1), a) + kl(P.sum(0), b))
        tolerance = {"rel": 3e-5, "abs": 1e-5}
        assert out.primal_cost()[pair].item() == pytest.approx(primal, **tolerance)
        assert out.entropic_cost()[pair].item() == pytest.approx(entropic, **tolerance)
        # Strong duality at convergence.
        assert out.dual_cost()[pair].item() == pytest.approx(entropic, **tolerance)
        rows = P / P.sum(1, keepdims=True)
        entropy = -(rows * np.log(np.maximum(rows, 1e-300))).sum(1)
        np.testing.assert_allclose(as_array(out.effective_matches_per_row()[pair, :n]), np.exp(entropy), rtol=1e-3)
        mean = (P.sum(1) * entropy).sum() / P.sum()
        assert out.effective_matches()[pair].item() == pytest.approx(np.exp(mean), rel=1e-3)
        values = torch.randn(2, 5, 3)
        product = P @ as_array(values[pair, :m])
        np.testing.assert_allclose(as_array(out.apply_plan(values)[pair, :n]), product, atol=1e-5)
        np.testing.assert_allclose(
            as_array(out.barycentric(values)[pair, :n]), product / P.sum(1, keepdims=True), atol=1e-4
        )
    assert (out.barycentric(values)[1, 4:] == 0).all()
    assert (out.effective_matches_per_row()[1, 4:] == 1).all()


def test_transposed_product():
    batch = ragged_tokens([6, 4], [3, 5])
    out = solve(*batch, epsilon=0.05)
    values = torch.randn(2, 6, 2)
    torch.testing.assert_close(out.apply_plan(values, axis=0), out.plan().mT @ values, atol=1e-5, rtol=0)


def test_outputs_carry_no_gradient():
    x_BND = torch.randn(1, 3, 4, requires_grad=True)
    out = solve(x_BND, x_BND)
    assert not out.primal_cost().requires_grad
    assert not out.f_BN.requires_grad


def test_top_matches_are_the_largest_shares_of_each_row():
    batch = ragged_tokens([6, 4], [3, 5])
    out = solve(*batch, epsilon=0.05)
    shares, columns = out.top_matches(2)
    rows = out.plan() / out.plan().sum(2, keepdim=True).clamp_min(1e-30)
    torch.testing.assert_close(shares, rows.topk(2, 2).values)
    torch.testing.assert_close(rows.gather(2, columns), shares)
    assert (shares[1, 4:] == 0).all()
    with pytest.raises(TransportError, match="k is 6"):
        out.top_matches(6)


def test_panels_make_up_the_plan():
    out = solve(*ragged_tokens([6, 4], [3, 5]))
    parts = [plan_BRM for _, plan_BRM, _ in out.panels(elements=20)]
    assert len(parts) == 3
    torch.testing.assert_close(torch.cat(parts, 1), out.plan())
