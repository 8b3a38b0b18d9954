import pytest
import torch

from optical_scale.errors import TransportError
from optical_scale.transport.geometry import build_geometry
from optical_scale.transport.problem import cost_std
from optical_scale.transport.solve import solve
from tests.unit.transport.problems import ragged_tokens


def test_cost_std_is_that_of_the_existing_entries():
    batch = ragged_tokens([6, 4, 1], [3, 5, 1])
    geometry = build_geometry("cosine", *batch)
    got_B = cost_std(geometry, *batch[2:])
    inside_BNM = batch.mask_x_BN[:, :, None] & batch.mask_y_BM[:, None, :]
    expected = [geometry.cost()[i][inside_BNM[i]].double().std(correction=0).item() for i in range(3)]
    assert got_B.tolist() == pytest.approx(expected, abs=1e-6)


def test_relative_epsilon_follows_the_spread_and_has_a_floor():
    batch = ragged_tokens([6, 4, 1], [3, 5, 1])
    spread_B = cost_std(build_geometry("cosine", *batch), *batch[2:])
    out = solve(*batch, epsilon=0.5, epsilon_mode="relative")
    torch.testing.assert_close(out.problem.epsilon, (0.5 * spread_B).clamp_min(0.01))
    assert out.problem.epsilon[2] == pytest.approx(0.01)
    assert out.choice.domain == "exp"


def test_relative_epsilon_of_vectors_without_scale_is_finite():
    out = solve(torch.zeros(1, 3, 2), torch.zeros(1, 2, 2), epsilon_mode="relative", cost="dot")
    torch.testing.assert_close(out.plan(), torch.full((1, 3, 2), 1 / 6))


def mutate(**changes):
    batch = ragged_tokens([4, 3], [3, 2])._asdict()
    x, y, mask_x, mask_y = (changes.pop(key, batch[key]) for key in batch)
    return (x, y, mask_x, mask_y), changes


NAN_INSIDE = ragged_tokens([4, 3], [3, 2]).x_BND.clone()
NAN_INSIDE[1, 0, 0] = float("inf")
NO_TOKENS = torch.tensor([[True, True, False], [False, False, False]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_BND": NAN_INSIDE}, r"x holds NaN or infinity.*pair 1 of 2"),
        ({"mask_y_BM": NO_TOKENS}, r"y has no tokens inside its mask.*pair 1 of 2"),
        ({"x_BND": torch.zeros(2, 0, 8), "mask_x_BN": None}, "empty sequence"),
        ({"y_BMD": torch.zeros(2, 3, 5)}, "agree in pairs"),
        ({"x_BND": torch.zeros(2, 4, 8, dtype=torch.int64)}, "expected floating"),
        ({"mask_x_BN": torch.ones(2, 5, dtype=torch.bool)}, r"mask_x_BN has shape \(2, 5\); expected \(2, 4\)"),
        ({"mask_x_BN": torch.ones(2, 4)}, "expected bool"),
        (
            {"marginal_x": torch.tensor([[0.5, 0.5, 0.5, -0.5], [0.5, 0.5, 0, 0]])},
            r"mass of x is negative.*pair 0 of 2",
        ),
        ({"marginal_x": torch.full((2, 4), 0.5)}, r"masses of x and y differ.*pair 0, 1 of 2"),
        ({"marginal_y": torch.zeros(2, 3)}, "y has no tokens inside its mask, or no mass"),
        ({"epsilon": 0.0}, "epsilon is 0.0"),
        ({"epsilon": float("nan")}, "epsilon is nan"),
        ({"epsilon": torch.tensor([0.1, -0.1])}, r"epsilon is not a finite number above 0 \(pair 1 of 2\)"),
        ({"rho": 0.0}, "rho is 0.0"),
        ({"iterations": 0}, "iterations is 0"),
        ({"tolerance": -1.0}, "tolerance is -1.0"),
        ({"cost": "euclid"}, "cost is 'euclid'; expected one of cosine, sqeuclidean, dot"),
        ({"backend": "cuda"}, "expected one of auto, dense, streamed, blockwise"),
    ],
)
def test_ill_posed_problems_are_explained(changes, message):
    tokens, options = mutate(**changes)
    with pytest.raises(TransportError, match=message):
        solve(*tokens, **options)


def test_unequal_masses_are_fine_when_unbalanced():
    tokens, _ = mutate()
    out = solve(*tokens, marginal_x=torch.full((2, 4), 0.5), rho=1.0, iterations=200)
    assert out.converged_B.all()
