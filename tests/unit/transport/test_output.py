import numpy as np
import pytest
import torch

from optical_scale.errors import TransportError
from optical_scale.transport import native, solve
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


def test_values_of_tokens_that_do_not_exist_are_not_read():
    batch = ragged_tokens([6, 4], [3, 5], width=4)  # NaN outside the masks
    out = solve(*batch)
    for pair in range(2):
        x, y = crop(batch, pair)
        alone = solve(x, y)
        torch.testing.assert_close(out.barycentric(batch.y_BMD)[pair, : x.shape[1]], alone.barycentric(y)[0])
        torch.testing.assert_close(out.apply_plan(batch.x_BND, 0)[pair, : y.shape[1]], alone.apply_plan(x, 0)[0])


@pytest.mark.parametrize(
    ("values", "axis", "message"),
    [
        (torch.zeros(2, 5, 3), 2, "axis is 2"),
        (torch.zeros(2, 5, 3), None, "axis is None"),
        (torch.zeros(2, 5), 1, r"values are \(2, 5\); expected \(2, 5\) and a width"),
        (torch.zeros(2, 6, 3), 1, r"values are \(2, 6, 3\)"),
        ([[0.0]], 0, "values are list"),
    ],
)
def test_values_that_do_not_fit_the_plan_are_refused(values, axis, message):
    out = solve(*ragged_tokens([6, 4], [3, 5]))
    with pytest.raises(TransportError, match=message):
        out.apply_plan(values, axis)


@pytest.mark.parametrize("options", [{}, {"cost": "dot"}, {"epsilon": torch.zeros(0)}, {"epsilon_mode": "relative"}])
def test_no_pairs_have_no_plans(options):
    out = solve(torch.zeros(0, 4, 3), torch.zeros(0, 2, 3), **options)
    assert out.plan().shape == (0, 4, 2)
    assert out.primal_cost().shape == out.effective_matches().shape == (0,)
    assert out.top_matches(1)[0].shape == (0, 4, 1)


@pytest.mark.parametrize("cost", ["cosine", "dot", "sqeuclidean"])
@pytest.mark.parametrize("compiled", [True, False])
def test_vectors_may_lie_in_memory_as_they_like(cost, compiled, monkeypatch):
    if not compiled:
        monkeypatch.setattr(native, "sweeps", lambda: None)
    batch = ragged_tokens([12, 7], [10, 6], width=16)  # NaN outside the masks
    turned = [x.transpose(0, 1).contiguous().transpose(0, 1) for x in (batch.x_BND, batch.y_BMD)]
    assert not turned[0].is_contiguous()
    for backend in ("dense", "streamed", "blockwise"):
        if backend == "streamed" and cost != "cosine":
            continue
        settings = {"cost": cost, "epsilon": 0.5, "backend": backend}
        found, expected = solve(*turned, *batch[2:], **settings), solve(*batch, **settings)
        torch.testing.assert_close(found.plan(), expected.plan())
        torch.testing.assert_close(found.primal_cost(), expected.primal_cost())


@pytest.mark.parametrize("cost", ["cosine", "dot", "sqeuclidean"])
def test_a_solution_does_not_change_with_its_input(cost):
    batch = ragged_tokens([4, 4], [3, 3])
    out = solve(batch.x_BND, batch.y_BMD, cost=cost, epsilon=1.0)
    before = out.plan(), out.primal_cost()
    batch.x_BND.zero_()
    batch.y_BMD.zero_()
    torch.testing.assert_close((out.plan(), out.primal_cost()), before)


@pytest.mark.parametrize("size", [8, 300])
def test_masks_and_masses_may_lie_in_memory_as_they_like(size):
    generator = torch.Generator().manual_seed(0)
    x_BND, y_BMD = torch.randn(2, size, 4, generator=generator), torch.randn(2, size, 4, generator=generator)
    mask_NB = torch.arange(size)[:, None] < torch.tensor([[size, size - 3]])
    masses_NB = torch.rand(size, 2, generator=generator)
    masses_NB /= masses_NB.sum(0)
    for options in ({"mask_x_BN": mask_NB, "mask_y_BM": mask_NB}, {"marginal_x": masses_NB, "marginal_y": masses_NB}):
        turned = solve(x_BND, y_BMD, **{name: value.t() for name, value in options.items()})
        copied = solve(x_BND, y_BMD, **{name: value.t().contiguous() for name, value in options.items()})
        assert torch.equal(turned.plan(), copied.plan())
