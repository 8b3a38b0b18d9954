"""One launch that solves a pair and differentiates it, against a float64 solve of the very same values."""

import pytest
import torch

from optical_scale.transport import sinkhorn_cost, sinkhorn_cost_packed
from tests.unit.transport.problems import Tokens
from tests.unit.transport.triton.cases import distance, tokens

WEIGHTS = (1.0, -2.0, 0.5)
FUSED = {"backend": "triton_pairs", "check": False}
ROUNDING = {torch.float32: 1e-6, torch.bfloat16: 5e-3, torch.float16: 1e-3}
DIAGNOSTICS = ("cost_B", "dual_cost_B", "marginal_error_B", "effective_matches_B")


def run(batch, **settings):
    x_BND, y_BMD = (t.detach().clone().requires_grad_() for t in batch[:2])
    result = sinkhorn_cost(x_BND, y_BMD, *batch[2:], **settings)
    return result, torch.autograd.grad((result.cost_B * result.cost_B.new_tensor(WEIGHTS)).sum(), (x_BND, y_BMD))


def exact(batch, **settings):
    return run(Tokens(*(t.double() for t in batch[:2]), *batch[2:]), backend="dense", domain="log", **settings)


def assert_close(mine, theirs, dtype):
    for name in DIAGNOSTICS:
        got, expected = getattr(mine[0], name), getattr(theirs[0], name).float()
        torch.testing.assert_close(got, expected, atol=2e-6, rtol=2e-5, msg=lambda text, name=name: f"{name}: {text}")
    for got, expected in zip(mine[1], theirs[1], strict=True):
        assert distance(got, expected) < ROUNDING[dtype]


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("domain", ["exp", "log"])
def test_cost_diagnostics_and_both_gradients(dtype, domain):
    batch = tokens(dtype, width=150)
    settings = {"epsilon": 0.1, "iterations": 4}
    mine = run(batch, domain=domain, **FUSED, **settings)
    assert (mine[0].choice.domain, "one launch" in mine[0].choice.reason) == (domain, True)
    assert mine[1][0].dtype == dtype
    assert_close(mine, exact(batch, **settings), dtype)


@pytest.mark.parametrize("epsilon", [0.005, 0.02, 1.0])
def test_any_epsilon(epsilon):
    settings = {"epsilon": epsilon, "iterations": 5}
    mine, theirs = run(tokens(), **FUSED, **settings), exact(tokens(), **settings)
    assert mine[0].choice.domain == ("log" if epsilon < 0.02 else "exp")
    # The kernel magnifies the rounding of a cosine, 6e-8, by 1 / epsilon.
    torch.testing.assert_close(mine[0].cost_B, theirs[0].cost_B.float(), atol=1e-6, rtol=1e-5)
    assert max(distance(m, t) for m, t in zip(mine[1], theirs[1], strict=True)) < 1e-6 * max(1, 0.1 / epsilon)


@pytest.mark.parametrize("domain", ["exp", "log"])
def test_given_masses_some_of_them_zero(domain):
    batch = tokens()
    a_BN = batch.mask_x_BN * torch.arange(19).remainder(3).add(1.0)
    a_BN[0, 4] = 0
    a_BN = a_BN / a_BN.sum(1, keepdim=True)
    settings = {"epsilon": 0.05, "iterations": 3, "marginal_x": a_BN}
    mine = run(batch, domain=domain, **FUSED, **settings)
    assert_close(mine, exact(batch, **settings), torch.float32)
    assert (mine[1][0][a_BN == 0] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_lengths_of_vectors_do_not_matter(dtype, scale):
    batch = tokens(dtype)
    scaled = Tokens(batch.x_BND * scale, batch.y_BMD * scale, *batch[2:])
    mine, theirs = run(scaled, epsilon=0.1, iterations=2, **FUSED), exact(scaled, epsilon=0.1, iterations=2)
    assert_close((mine[0], ()), (theirs[0], ()), dtype)
    # Gradients are of the size of one over the length; in bfloat16 their smallest entries leave its range.
    assert all(torch.isfinite(gradient).all() for gradient in mine[1])
    assert distance(mine[1][1] * scale, theirs[1][1] * scale) < 2 * ROUNDING[dtype]


@pytest.mark.parametrize("domain", ["exp", "log"])
def test_identical_and_zero_vectors(domain):
    x_BND, y_BMD = torch.ones(2, 5, 4), torch.ones(2, 3, 4, requires_grad=True)
    x_BND[1] = 0
    result = sinkhorn_cost(x_BND, y_BMD, epsilon=0.02, domain=domain, **FUSED)
    result.cost_B.sum().backward()
    torch.testing.assert_close(result.cost_B, torch.tensor([0.0, 1.0]), atol=5e-6, rtol=0)
    torch.testing.assert_close(result.effective_matches_B, torch.tensor([3.0, 3.0]), atol=1e-3, rtol=0)
    assert y_BMD.grad.abs().max() < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("given", [False, True])
def test_packed_pairs_are_read_where_they_are_and_agree_in_every_bit(dtype, given):
    batch = tokens(dtype)
    settings = {"epsilon": 0.05, "iterations": 3, **FUSED}
    a_BN = batch.mask_x_BN / batch.mask_x_BN.sum(1, keepdim=True)
    padded, padded_grads = run(batch, **settings, **({"marginal_x": a_BN} if given else {}))
    packed = [t[mask].requires_grad_() for t, mask in zip(batch[:2], batch[2:], strict=True)]
    ends = [torch.tensor([0, 19, 24, 25]), torch.tensor([0, 7, 25, 28], dtype=torch.int32)]
    more = {"marginal_x": a_BN[batch.mask_x_BN]} if given else {}
    result = sinkhorn_cost_packed(*packed, *ends, **settings, **more)
    assert "one launch" in result.choice.reason
    for name in DIAGNOSTICS:
        assert torch.equal(getattr(result, name), getattr(padded, name))
    grads = torch.autograd.grad((result.cost_B * result.cost_B.new_tensor(WEIGHTS)).sum(), packed)
    for got, expected, mask in zip(grads, padded_grads, batch[2:], strict=True):
        assert torch.equal(got, expected[mask])
        assert (expected[~mask] == 0).all()


@pytest.mark.parametrize("backend", ["triton_stored", "triton_tiles"])
def test_packed_pairs_of_the_other_tiers_agree_with_padded_ones(backend):
    batch = tokens()
    settings = {"epsilon": 0.05, "iterations": 2, "backend": backend}
    padded, padded_grads = run(batch, **settings)
    packed = [t[mask].requires_grad_() for t, mask in zip(batch[:2], batch[2:], strict=True)]
    result = sinkhorn_cost_packed(*packed, torch.tensor([0, 19, 24, 25]), torch.tensor([0, 7, 25, 28]), **settings)
    torch.testing.assert_close(result.cost_B, padded.cost_B, atol=1e-6, rtol=0)
    grads = torch.autograd.grad((result.cost_B * result.cost_B.new_tensor(WEIGHTS)).sum(), packed)
    for got, expected, mask in zip(grads, padded_grads, batch[2:], strict=True):
        assert distance(got, expected[mask].double()) < 1e-6


def test_only_the_sides_that_ask_get_a_gradient_and_runs_agree_in_every_bit():
    batch = tokens()
    both = run(batch, epsilon=0.05, iterations=2, **FUSED)[1]
    for side in (0, 1):
        sides = [t.detach().clone() for t in batch[:2]]
        sides[side].requires_grad_()
        cost_B = sinkhorn_cost(*sides, *batch[2:], epsilon=0.05, iterations=2, **FUSED).cost_B
        (gradient,) = torch.autograd.grad((cost_B * cost_B.new_tensor(WEIGHTS)).sum(), sides[side])
        assert torch.equal(gradient, both[side])


def test_autocast_changes_nothing():
    plain = run(tokens(), epsilon=0.05, iterations=1, **FUSED)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = run(tokens(), epsilon=0.05, iterations=1, **FUSED)
    assert torch.equal(plain[0].cost_B, inside[0].cost_B)
    assert all(torch.equal(one, two) for one, two in zip(plain[1], inside[1], strict=True))


class Watch(torch.utils._python_dispatch.TorchDispatchMode):
    """Collects whatever would wait for a device; none of it may be captured in a CUDA graph."""

    WAITS = ("_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "item", "equal")

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))

    @property
    def waits(self):
        return [name for name in self.seen if name in self.WAITS]


@pytest.mark.parametrize("backend", ["triton_pairs", "triton_stored", "triton_tiles"])
@pytest.mark.parametrize("epsilon", [0.1, 0.005])
def test_a_step_never_waits_for_the_device(backend, epsilon):
    with Watch() as watch:
        run(tokens(), epsilon=epsilon, iterations=2, backend=backend, check=False)
    assert watch.waits == []


def test_a_fused_step_takes_a_fraction_of_the_launches_of_the_general_way():
    seen = []
    for check in (False, True):
        with Watch() as watch:
            run(tokens(torch.bfloat16), epsilon=0.1, iterations=2, backend="triton_pairs", check=check)
        # Views and empty tensors launch nothing.
        free = ("detach", "alias", "view", "empty", "new_empty", "empty_like", "unbind", "_unsafe_view", "unsqueeze")
        seen.append(len([name for name in watch.seen if name not in free]))
    assert seen[0] < seen[1] / 3, seen


@pytest.mark.parametrize(
    "settings",
    [{"check": True}, {"tolerance": 0.1}, {"rho": 0.5}, {"cost": "dot", "epsilon": 8.0}, {"gradient": "implicit"}],
)
def test_what_the_launch_does_not_do_goes_the_general_way(settings):
    result = sinkhorn_cost(*tokens(), **({"epsilon": 0.1, "iterations": 1} | FUSED | settings))
    assert "one launch" not in result.choice.reason
    assert torch.isfinite(result.cost_B).all()
