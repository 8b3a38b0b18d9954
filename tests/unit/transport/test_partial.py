import ot
import pytest
import torch

from optical_scale.errors import TransportError
from optical_scale.transport import sinkhorn_cost, solve
from optical_scale.transport.reference import as_array, cost_matrix
from tests.unit.transport.problems import crop, ragged_tokens

BACKENDS = [("dense", "exp"), ("dense", "log"), ("streamed", "exp"), ("blockwise", "exp"), ("blockwise", "log")]


@pytest.mark.parametrize(("backend", "domain"), BACKENDS)
def test_partial_plan_equals_pot(backend, domain):
    batch = ragged_tokens([9, 4], [5, 7])
    out = solve(*batch, mass=0.6, epsilon=0.1, iterations=2000, backend=backend, domain=domain)
    assert (out.marginal_error_B < 1e-5).all()
    for pair in range(2):
        x, y = crop(batch, pair)
        cost = cost_matrix(x[0], y[0], "cosine")
        n, m = cost.shape
        a, b = torch.full((n,), 1 / n).double().numpy(), torch.full((m,), 1 / m).double().numpy()
        expected = ot.partial.entropic_partial_wasserstein(a, b, cost, 0.1, m=0.6, numItermax=20_000, stopThr=1e-13)
        got = as_array(out.plan()[pair, :n, :m])
        assert abs(got - expected).max() < 3e-5 * expected.max()
        assert got.sum() == pytest.approx(0.6, abs=1e-6)


def test_moving_everything_is_the_balanced_problem():
    batch = ragged_tokens([6, 4], [3, 5])
    partial = solve(*batch, mass=1.0, epsilon=0.05, iterations=500)
    balanced = solve(*batch, epsilon=0.05, iterations=500)
    torch.testing.assert_close(partial.plan(), balanced.plan(), atol=2e-6, rtol=0)


def test_partial_duality_and_gradient():
    x_BND, y_BMD = (0.5 * torch.randn(2, n, 4, dtype=torch.float64) for n in (5, 3))
    settings = {"mass": torch.tensor([0.5, 0.8]), "epsilon": 0.3, "iterations": 3000}
    out = solve(x_BND, y_BMD, **settings)
    torch.testing.assert_close(out.dual_cost(), out.entropic_cost(), atol=1e-8, rtol=0)
    y_BMD.requires_grad_()
    (got,) = torch.autograd.grad(sinkhorn_cost(x_BND, y_BMD, **settings).cost_B.sum(), y_BMD)
    direction = torch.randn_like(got)
    with torch.no_grad():
        up, down = (
            sinkhorn_cost(x_BND, y_BMD + s * direction, **settings).dual_cost_B.sum().item() for s in (1e-5, -1e-5)
        )
    assert (got * direction).sum().item() == pytest.approx((up - down) / 2e-5, rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mass": 1.5}, r"mass is not a number above 0 and at most"),
        ({"mass": 0.0}, r"mass is not a number above 0"),
        ({"mass": 0.5, "rho": 1.0}, "exclude each other"),
        ({"mass": 0.5, "relaxation": 1.5}, "exclude each other"),
        ({"mass": torch.ones(3)}, r"mass has shape \(3,\)"),
        ({"epsilon": torch.ones(3)}, r"epsilon has shape \(3,\)"),
        ({"relaxation": 2.0}, "between 0 and 2"),
        ({"schedule": (0.5,)}, "multiples of epsilon"),
        ({"start": (torch.zeros(1, 4), torch.zeros(1, 9))}, r"start g has shape \(1, 9\)"),
        ({"start": (torch.zeros(1, 4), torch.full((1, 3), torch.nan))}, "start g is not finite"),
        ({"backend": "streamed", "epsilon": 0.001}, "streamed.*iterates on scalings"),
        ({"backend": "streamed", "domain": "log"}, "streamed.*iterates on scalings"),
    ],
)
def test_what_cannot_be_solved_is_explained(options, message):
    with pytest.raises(TransportError, match=message):
        solve(*ragged_tokens([4], [3]), **options)
