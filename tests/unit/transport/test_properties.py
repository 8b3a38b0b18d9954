"""Properties over random shapes, masks, masses, lengths and epsilon, against a float64 loop of as many iterations."""

import numpy as np
import pytest
import torch

from optical_scale.transport import sinkhorn_cost, sinkhorn_cost_packed, solve
from optical_scale.transport.reference import as_array, cost_matrix, sinkhorn_plan

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies
sizes = st.lists(st.integers(1, 12), min_size=1, max_size=4)
epsilons = st.sampled_from([0.005, 0.01, 0.02, 0.05, 0.1, 0.3, 1.0])
backends = st.sampled_from(["auto", "dense", "blockwise"])
examples = hypothesis.settings(max_examples=40, deadline=None, derandomize=True, database=None)


def problem(lengths_x, lengths_y, width, seed, scale=1.0, zero_mass=False, identical=False):
    """Tokens with NaN in the padding, masks, and masses of sum one, some of them zero if asked."""
    pairs = min(len(lengths_x), len(lengths_y))
    generator = torch.Generator().manual_seed(seed)
    tokens, masks, masses = [], [], []
    for lengths in (lengths_x[:pairs], lengths_y[:pairs]):
        longest = max(lengths)
        x_BTD = torch.randn(pairs, longest, width, generator=generator) * scale
        if identical:
            x_BTD[:] = torch.ones(width) * scale
        mask_BT = torch.arange(longest) < torch.tensor(lengths)[:, None]
        x_BTD[~mask_BT] = torch.nan
        mass_BT = torch.rand(pairs, longest, generator=generator) + 0.05
        if zero_mass:
            # The first token keeps its mass, so that none is lost altogether.
            mass_BT[:, 1:] *= torch.rand(pairs, longest - 1, generator=generator) > 0.5
        mass_BT = mass_BT * mask_BT
        tokens.append(x_BTD)
        masks.append(mask_BT)
        masses.append(mass_BT / mass_BT.sum(1, keepdim=True))
    return tokens, masks, masses


def reference(x_ND, y_MD, a_N, b_M, epsilon, iterations):
    """Cost and gradient to y of one pair in float64, the plan held constant."""
    y = y_MD.double().requires_grad_()
    plan = sinkhorn_plan(cost_matrix(x_ND, y_MD, "cosine"), as_array(a_N), as_array(b_M), float(epsilon), iterations)
    # Lengths far from one would overflow squares only in float32.
    cost = 1 - torch.nn.functional.normalize(x_ND.double(), dim=-1, eps=0) @ (y / y.norm(dim=-1, keepdim=True)).mT
    value = (torch.from_numpy(plan) * cost).sum()
    (gradient,) = torch.autograd.grad(value, y)
    return value.item(), gradient


@examples
@hypothesis.given(
    sizes, sizes, st.integers(2, 40), st.integers(0, 10**6), epsilons, backends, st.booleans(),
    st.sampled_from([1e-20, 1e-3, 1.0, 1e20]),
)  # fmt: skip
def test_cost_and_gradient_equal_float64(lengths_x, lengths_y, width, seed, epsilon, backend, zero_mass, scale):
    (x, y), masks, (a, b) = problem(lengths_x, lengths_y, width, seed, scale, zero_mass)
    y.requires_grad_()
    result = sinkhorn_cost(x, y, *masks, marginal_x=a, marginal_y=b, epsilon=epsilon, iterations=10, backend=backend)
    (gradient,) = torch.autograd.grad(result.cost_B.sum(), y)
    # A cosine is rounded by 6e-8, which the kernel magnifies by 1 / epsilon.
    tolerance = max(1e-6, 1e-7 / epsilon)
    for pair in range(len(x)):
        n, m = (int(mask[pair].sum()) for mask in masks)
        parts = (x[pair, :n], y[pair, :m].detach(), a[pair, :n], b[pair, :m])
        value, expected = reference(*parts, epsilon, 10)
        assert result.cost_B[pair].item() == pytest.approx(value, rel=tolerance, abs=tolerance)
        # Scaled by the lengths, so that one bound serves 1e-20 and 1e20.
        got, expected = (
            t.double() * y[pair, :m].detach().double().norm(dim=-1, keepdim=True)
            for t in (gradient[pair, :m], expected)
        )
        assert (got - expected).norm() <= 2 * tolerance * max(expected.norm().item(), 1.0)
        assert (gradient[pair, m:] == 0).all()


@examples
@hypothesis.given(sizes, sizes, st.integers(0, 10**6), epsilons, backends)
def test_padded_equals_packed_and_two_runs_are_bitwise_equal(lengths_x, lengths_y, seed, epsilon, backend):
    (x, y), masks, _ = problem(lengths_x, lengths_y, 8, seed)
    runs = [sinkhorn_cost(x, y, *masks, epsilon=epsilon, backend=backend).cost_B for _ in range(2)]
    assert torch.equal(*runs)
    cu = [torch.cat([torch.zeros(1, dtype=torch.int64), mask.sum(1).cumsum(0)]) for mask in masks]
    packed = sinkhorn_cost_packed(x[masks[0]], y[masks[1]], *cu, epsilon=epsilon, backend=backend)
    torch.testing.assert_close(packed.cost_B, runs[0], atol=max(1e-6, 1e-7 / epsilon), rtol=0)


@examples
@hypothesis.given(sizes, sizes, epsilons, backends, st.sampled_from([1e-20, 1.0, 1e20]))
def test_identical_points_cost_nothing_and_spread_evenly(lengths_x, lengths_y, epsilon, backend, scale):
    (x, y), masks, _ = problem(lengths_x, lengths_y, 3, 0, scale, identical=True)
    out = solve(x, y, *masks, epsilon=epsilon, backend=backend)
    uniform_BN, uniform_BM = (mask / mask.sum(1, keepdim=True) for mask in masks)
    np.testing.assert_allclose(
        as_array(out.plan()), as_array(uniform_BN[:, :, None] * uniform_BM[:, None, :]), atol=1e-6, rtol=1e-4
    )
    assert out.primal_cost().abs().max() < 1e-6
    assert (out.marginal_error_B < 1e-5).all()
