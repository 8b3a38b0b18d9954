import pytest
import torch

from optical_scale.errors import TransportError
from optical_scale.transport import sinkhorn_cost
from tests.unit.transport.problems import ragged_tokens


def float64_pair(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (0.5 * torch.randn(2, n, 4, generator=generator, dtype=torch.float64) for n in (5, 3))


@pytest.mark.parametrize("cost", ["cosine", "sqeuclidean", "dot"])
@pytest.mark.parametrize(("rho", "debias"), [(None, False), (0.5, False), (None, True)])
def test_envelope_gradient_is_the_derivative_of_the_dual_value(cost, rho, debias):
    x_BND, y_BMD = float64_pair()
    settings = {"epsilon": 0.5, "iterations": 2000, "cost": cost, "rho": rho, "debias": debias}

    def dual(x, y):
        return sinkhorn_cost(x, y, **settings).dual_cost_B.sum().item()

    x_BND.requires_grad_()
    y_BMD.requires_grad_()
    result = sinkhorn_cost(x_BND, y_BMD, **settings)
    gradients = torch.autograd.grad(result.cost_B.sum(), (x_BND, y_BMD))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for side, gradient in enumerate(gradients):
            direction = torch.randn(gradient.shape, generator=generator, dtype=torch.float64)
            moved = [
                [t + sign * 1e-5 * direction if i == side else t for i, t in enumerate((x_BND, y_BMD))]
                for sign in (1, -1)
            ]
            slope = (dual(*moved[0]) - dual(*moved[1])) / 2e-5
            assert (gradient * direction).sum().item() == pytest.approx(slope, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("debias", [False, True])
@pytest.mark.parametrize("rho", [None, 0.5])
def test_unrolled_gradient_is_the_derivative_of_the_value(rho, debias):
    if debias and rho:
        pytest.skip("excluded by an error")
    x_BND, y_BMD = (t.requires_grad_() for t in float64_pair())

    def value(x, y):
        settings = {"epsilon": 0.3, "iterations": 3, "rho": rho, "debias": debias, "gradient": "unrolled"}
        return sinkhorn_cost(x, y, **settings).cost_B

    assert torch.autograd.gradcheck(value, (x_BND, y_BMD))


def test_unrolled_has_the_same_value_but_another_gradient():
    batch = ragged_tokens([6, 4], [3, 5])
    results = []
    for gradient in ("envelope", "unrolled"):
        y_BMD = batch.y_BMD.clone().requires_grad_()
        cost_B = sinkhorn_cost(batch.x_BND, y_BMD, *batch[2:], epsilon=0.1, gradient=gradient).cost_B
        results.append((cost_B.detach(), *torch.autograd.grad(cost_B.sum(), y_BMD)))
    torch.testing.assert_close(results[0][0], results[1][0], atol=1e-6, rtol=0)
    assert torch.isfinite(results[1][1]).all()
    assert (results[0][1] - results[1][1]).norm() > 0.05 * results[0][1].norm()


@pytest.mark.parametrize("backend", ["dense", "blockwise"])
def test_only_required_sides_get_a_gradient_and_all_routes_agree(backend):
    batch = ragged_tokens([6, 4], [3, 5])
    values, gradients = [], []
    for need_x, need_y in ((False, False), (True, False), (False, True), (True, True)):
        x = batch.x_BND.clone().requires_grad_(need_x)
        y = batch.y_BMD.clone().requires_grad_(need_y)
        cost_B = sinkhorn_cost(x, y, *batch[2:], backend=backend).cost_B
        assert cost_B.requires_grad == (need_x or need_y)
        if need_x or need_y:
            cost_B.sum().backward()
        values.append(cost_B.detach())
        gradients.append((x.grad, y.grad))
    for value in values[1:]:
        torch.testing.assert_close(value, values[0], atol=2e-6, rtol=0)
    assert gradients[1][1] is gradients[2][0] is None
    torch.testing.assert_close(gradients[3][0], gradients[1][0])
    torch.testing.assert_close(gradients[3][1], gradients[2][1])
    # Padding holds NaN; it must get zero.
    assert (gradients[3][0][~batch.mask_x_BN] == 0).all()
    assert (gradients[3][1][~batch.mask_y_BM] == 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_inputs_and_autocast_compute_in_float32(dtype):
    batch = ragged_tokens([6, 4], [3, 5])
    y_BMD = batch.y_BMD.to(dtype).requires_grad_()
    x_BND = batch.x_BND.to(dtype)
    exact = sinkhorn_cost(x_BND.float(), y_BMD.float(), *batch[2:]).cost_B
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = sinkhorn_cost(x_BND, y_BMD, *batch[2:])
        result.cost_B.sum().backward()
    assert result.cost_B.dtype == torch.float32
    torch.testing.assert_close(result.cost_B, exact, atol=1e-6, rtol=0)
    assert y_BMD.grad.dtype == dtype
    assert torch.isfinite(y_BMD.grad).all()


def test_small_float16_gradients_survive_until_the_loss_scale():
    """A gradient entry of about 1e-8 is zero in float16 unless the loss scale reaches it first."""
    x_BND, y_BMD = torch.randn(1, 3, 4), (torch.randn(1, 600, 4) * 1e3).half().requires_grad_()
    (sinkhorn_cost(x_BND, y_BMD, epsilon=0.1).cost_B.sum() * 2.0**16).backward()
    assert (y_BMD.grad != 0).float().mean() > 0.9


def test_second_derivatives_are_refused():
    y_BMD = torch.randn(1, 3, 4, requires_grad=True)
    weight_B = torch.ones(1, requires_grad=True)
    cost_B = weight_B * sinkhorn_cost(torch.randn(1, 2, 4), y_BMD).cost_B
    (gradient,) = torch.autograd.grad(cost_B.sum(), y_BMD, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("gradient", ["envelope", "unrolled"])
def test_debiased_cost_vanishes_with_its_gradient_at_equality(gradient):
    x_BND = torch.randn(2, 6, 4)
    y_BMD = x_BND.flip(1).clone().requires_grad_()
    result = sinkhorn_cost(x_BND, y_BMD, epsilon=0.1, iterations=300, debias=True, gradient=gradient)
    result.cost_B.sum().backward()
    torch.testing.assert_close(result.cost_B, torch.zeros(2), atol=2e-6, rtol=0)
    torch.testing.assert_close(result.dual_cost_B, torch.zeros(2), atol=2e-6, rtol=0)
    assert y_BMD.grad.abs().max() < 5e-5
    biased = sinkhorn_cost(x_BND, y_BMD, epsilon=0.1, iterations=300)
    assert (biased.cost_B > 1e-3).all()


def test_debiased_relative_epsilon_is_that_of_the_pair():
    batch = ragged_tokens([6, 4], [3, 5])
    cross = sinkhorn_cost(*batch, epsilon=0.3, epsilon_mode="relative")
    debiased = sinkhorn_cost(*batch, epsilon=0.3, epsilon_mode="relative", debias=True)
    explicit = sinkhorn_cost(*batch, epsilon=cross.epsilon_B, debias=True)
    torch.testing.assert_close(debiased.cost_B, explicit.cost_B, atol=2e-6, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gradient": "exact"}, "expected 'envelope', 'unrolled' or 'implicit'"),
        ({"debias": True, "mass": 0.5}, "mass and start describe only one"),
        ({"gradient": "implicit", "mass": 0.5}, "has 'envelope' only"),
        ({"gradient": "unrolled", "schedule": (2.0,)}, "plain iterations from zero"),
        ({"debias": True, "rho": 0.1}, "exclude each other"),
        ({"gradient": "unrolled", "backend": "blockwise"}, "'unrolled' needs 'dense'"),
        ({"gradient": "unrolled", "domain": "exp"}, "'unrolled' needs 'log'"),
        ({"gradient": "unrolled", "tolerance": 1e-3}, "leave tolerance unset"),
    ],
)
def test_impossible_combinations_are_refused(options, message):
    with pytest.raises(TransportError, match=message):
        sinkhorn_cost(*ragged_tokens([4], [3]), **options)


@pytest.mark.parametrize("gradient", ["envelope", "unrolled", "implicit"])
@pytest.mark.parametrize("rho", [None, 0.5])
def test_masses_and_vectors_of_zero_have_no_gradient(gradient, rho):
    generator = torch.Generator().manual_seed(0)
    x_BND, y_BMD = (torch.randn(1, n, 4, generator=generator) for n in (4, 3))
    x_BND[0, 1] = 0.0
    masses_BN = torch.tensor([[0.5, 0.3, 0.2, 0.0]])
    for cost in ("cosine", "sqeuclidean"):
        x, a = x_BND.clone().requires_grad_(), masses_BN.clone().requires_grad_()
        settings = {"cost": cost, "rho": rho, "gradient": gradient, "epsilon": 0.5, "iterations": 30}
        found = sinkhorn_cost(x, y_BMD, marginal_x=a, **settings)
        found.cost_B.sum().backward()
        assert a.grad[0, 3] == 0
        assert (x.grad[0, 3] == 0).all()
        if cost == "cosine":
            assert (x.grad[0, 1] == 0).all()
        assert a.grad[0, :3].abs().min() > 0
