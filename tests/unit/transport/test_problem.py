import pytest
import torch

from optical_scale.errors import TransportError
from optical_scale.transport.geometry import build_geometry
from optical_scale.transport.problem import cost_spread
from optical_scale.transport.solve import solve
from tests.unit.transport.problems import ragged_tokens


def test_cost_spread_is_that_of_the_existing_entries():
    batch = ragged_tokens([6, 4, 1], [3, 5, 1])
    geometry = build_geometry("cosine", *batch)
    got_B, range_B = cost_spread(geometry, *batch[2:])
    inside_BNM = batch.mask_x_BN[:, :, None] & batch.mask_y_BM[:, None, :]
    expected = [geometry.cost()[i][inside_BNM[i]].double().std(correction=0).item() for i in range(3)]
    assert got_B.tolist() == pytest.approx(expected, abs=1e-6)
    inside = [geometry.cost()[i][inside_BNM[i]] for i in range(3)]
    assert range_B.tolist() == pytest.approx([float(cost.max() - cost.min()) for cost in inside], abs=1e-6)


def test_relative_epsilon_follows_the_spread_and_has_a_floor():
    batch = ragged_tokens([6, 4, 1], [3, 5, 1])
    spread_B, range_B = cost_spread(build_geometry("cosine", *batch), *batch[2:])
    out = solve(*batch, epsilon=0.5, epsilon_mode="relative")
    torch.testing.assert_close(out.problem.epsilon, (0.5 * spread_B).clamp_min(1e-4))
    assert out.problem.epsilon[2] == pytest.approx(1e-4)
    assert out.choice.domain == "exp"
    least_B = solve(*batch, epsilon=1e-6, epsilon_mode="relative").problem.epsilon
    torch.testing.assert_close(least_B, (range_B / 200).clamp_min(1e-4))


@pytest.mark.parametrize("cost", ["dot", "sqeuclidean"])
@pytest.mark.parametrize("offset", [0.0, 10.0])
def test_relative_epsilon_is_what_was_asked_for_wherever_the_origin_is(cost, offset):
    generator = torch.Generator().manual_seed(0)
    x_BND, y_BMD = (torch.randn(1, 30, 64, generator=generator) + offset for _ in range(2))
    exact = -x_BND.double() @ y_BMD.double().mT if cost == "dot" else torch.cdist(x_BND.double(), y_BMD.double()) ** 2
    out = solve(x_BND, y_BMD, epsilon=0.15, epsilon_mode="relative", cost=cost)
    assert float(out.problem.epsilon) == pytest.approx(0.15 * float(exact.std(correction=0)), rel=1e-3)


@pytest.mark.parametrize("side", ["left", "right"])
def test_relative_epsilon_of_a_narrow_band_does_not_see_padding(side):
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(1, 1, 32, generator=generator)
    x_BND, y_BMD = (base + 0.03 * torch.randn(1, n, 32, generator=generator) for n in (8, 6))
    padded = [torch.zeros(1, 12, 32) for _ in range(2)]
    masks = [torch.zeros(1, 12, dtype=torch.bool) for _ in range(2)]
    for full, mask, tokens in zip(padded, masks, (x_BND, y_BMD), strict=True):
        place = slice(-tokens.shape[1], None) if side == "left" else slice(0, tokens.shape[1])
        full[:, place], mask[:, place] = tokens, True
    settings = {"epsilon": 0.3, "epsilon_mode": "relative"}
    exact = solve(x_BND.double(), y_BMD.double(), **settings).problem.epsilon
    assert float(solve(*padded, *masks, **settings).problem.epsilon) == pytest.approx(float(exact), rel=5e-3)


@pytest.mark.parametrize("cost", ["dot", "sqeuclidean"])
def test_relative_epsilon_of_huge_costs_is_finite(cost):
    generator = torch.Generator().manual_seed(0)
    x_BND, y_BMD = (1e10 * torch.randn(1, 9, 8, generator=generator) for _ in range(2))
    settings = {"epsilon": 0.5, "epsilon_mode": "relative", "cost": cost, "iterations": 200}
    out, exact = solve(x_BND, y_BMD, **settings), solve(x_BND.double(), y_BMD.double(), **settings)
    assert float(out.problem.epsilon) == pytest.approx(float(exact.problem.epsilon), rel=1e-4)
    torch.testing.assert_close(out.plan().double(), exact.plan(), atol=1e-4, rtol=0)


def test_squared_distances_keep_their_digits_far_from_the_origin():
    generator = torch.Generator().manual_seed(0)
    x_BND, y_BMD = (torch.randn(2, 9, 16, generator=generator, dtype=torch.float64) for _ in range(2))
    settings = {"epsilon": 2.0, "iterations": 50, "cost": "sqeuclidean"}
    near, far = (solve((x_BND + c).float(), (y_BMD + c).float(), **settings) for c in (0.0, 64.0))
    torch.testing.assert_close(far.plan(), near.plan(), rtol=1e-3, atol=1e-6)


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
        ({"rho": float("inf")}, "rho is inf.*None for a balanced"),
        ({"rho": torch.ones(2)}, "rho is .*one number for all pairs"),
        ({"epsilon": "0.02"}, "epsilon is '0.02' .str.; expected a number, or a tensor"),
        ({"iterations": 2.5}, "iterations is 2.5 .float.; expected a whole number"),
        ({"schedule": 8}, "schedule is 8 .int.; expected a tuple"),
        ({"schedule": ("a",)}, "schedule is .'a',. .tuple.; expected a tuple of numbers"),
        ({"start": (torch.zeros(2, 4),)}, "start is a tuple; expected two tensors"),
        ({"x_BND": torch.zeros(2, 4, 8).numpy()}, "x is a ndarray; expected a torch.Tensor"),
        ({"mask_x_BN": [[True] * 4] * 2}, "mask_x_BN is a list; expected a torch.Tensor"),
        ({"x_BND": torch.zeros(2, 4, 8, dtype=torch.float64)}, "x is torch.float64, y torch.float32"),
        ({"mass": 3.0}, r"mass is not a number.*pair 0, 1 of 2: x has 1, y 1, mass is 3"),
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
