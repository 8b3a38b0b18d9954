import pytest
import torch
import torch.distributed as dist

from optical_scale.errors import TransportError
from optical_scale.transport import sharded_cost, sinkhorn_cost
from tests.support.processes import run_ranks
from tests.unit.transport.problems import ragged_tokens

CASES = [
    {"epsilon": 0.05},
    {"epsilon": 0.005},
    {"epsilon": 0.05, "rho": 0.3},
    {"epsilon": 0.3, "cost": "sqeuclidean"},
]


def on_each_rank() -> None:
    torch.set_num_threads(1)
    batch = ragged_tokens([40, 7], [11, 30])
    # Uneven shares; the second pair has no token at all on the second rank.
    rows = slice(0, 25) if dist.get_rank() == 0 else slice(25, 40)
    weights_B = torch.tensor([1.0, -2.0])
    for case in CASES:
        whole = [t.clone().requires_grad_() for t in batch[:2]]
        expected = sinkhorn_cost(*whole, *batch[2:], iterations=15, **case)
        (expected.cost_B * weights_B).sum().backward()
        x_BRD = batch.x_BND[:, rows].clone().requires_grad_()
        y_BMD = batch.y_BMD.clone().requires_grad_()
        got = sharded_cost(
            x_BRD, y_BMD, batch.mask_x_BN[:, rows], batch.mask_y_BM, group=dist.group.WORLD, iterations=15, **case
        )
        (got.cost_B * weights_B).sum().backward()
        torch.testing.assert_close(got.cost_B, expected.cost_B, atol=3e-6, rtol=1e-6)
        torch.testing.assert_close(got.marginal_error_B, expected.marginal_error_B, atol=3e-5, rtol=1e-6)
        torch.testing.assert_close(x_BRD.grad, whole[0].grad[:, rows], atol=3e-6, rtol=1e-6)
        torch.testing.assert_close(y_BMD.grad, whole[1].grad, atol=3e-6, rtol=1e-6)


def without_rows_on_one_rank() -> None:
    torch.set_num_threads(1)
    batch = ragged_tokens([6, 4], [5, 3])
    rows = slice(0, 6) if dist.get_rank() == 0 else slice(0, 0)
    for masked, case in [(True, CASES[0]), (True, CASES[1]), (False, CASES[3])]:
        given = batch.x_BND if masked else batch.x_BND.nan_to_num()
        mask_x_BN = batch.mask_x_BN if masked else None
        whole = given.clone().requires_grad_()
        expected = sinkhorn_cost(whole, batch.y_BMD, mask_x_BN, batch.mask_y_BM, iterations=15, **case)
        expected.cost_B.sum().backward()
        x_BRD = given[:, rows].clone().requires_grad_()
        mask_x_BR = mask_x_BN[:, rows] if masked else None
        got = sharded_cost(
            x_BRD, batch.y_BMD, mask_x_BR, batch.mask_y_BM, group=dist.group.WORLD, iterations=15, **case
        )
        got.cost_B.sum().backward()
        torch.testing.assert_close(got.cost_B, expected.cost_B, atol=3e-6, rtol=1e-6)
        torch.testing.assert_close(x_BRD.grad, whole.grad[:, rows], atol=3e-6, rtol=1e-6)


def bad_input_on_the_second_rank() -> None:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 4, 8, generator=generator), torch.randn(2, 5, 8, generator=generator)
    infinite, nothing, one_less = x.clone(), *(torch.ones(2, 5, dtype=torch.bool) for _ in range(2))
    infinite[1, 0, 0], nothing[1], one_less[0, 2] = torch.inf, False, False
    on_one = [
        ({"x_BRD": infinite}, r"^on rank 1: x holds NaN or infinity.* \(pair 1 of 2\)"),
        ({"x_BRD": x[0]}, r"^on rank 1: x is torch.float32 \(4, 8\); expected floating"),
        ({"x_BRD": x.int()}, "^on rank 1: x is torch.int32"),
        ({"x_BRD": x.double()}, "^on rank 1: x is torch.float64, y torch.float32"),
        ({"x_BRD": x[..., :7]}, "^on rank 1: x .* must agree in pairs"),
        ({"x_BRD": x[..., :7], "y_BMD": y[..., :7]}, "width: 8 on rank 0 but 7 on rank 1"),
        ({"y_BMD": y[:, :3]}, "columns of y: 5 on rank 0 but 3 on rank 1"),
        ({"mask_x_BR": torch.ones(2, 3, dtype=torch.bool)}, "^on rank 1: mask_x_BN has shape"),
        ({"mask_y_BM": nothing}, r"^on rank 1: y has no tokens inside its mask \(pair 1 of 2\)"),
        ({"x_BRD": [[1.0]]}, "^on rank 1: x is a list; expected a torch.Tensor"),
        ({"x_BRD": x[:, :0], "mask_x_BR": [[], []]}, "^on rank 1: mask_x_BN is a list"),
        ({"mask_y_BM": one_less}, "existing columns of the pairs: .5, 5. on rank 0 but .4, 5. on rank 1"),
        ({"epsilon": -0.1}, "^on rank 1: epsilon is -0.1"),
        ({"epsilon": torch.tensor([0.1, 0.2])}, "^on rank 1: epsilon is tensor.*expected one number for all pairs"),
        ({"mask_x_BR": "all"}, "^on rank 1: mask_x_BN is a str"),
        ({"epsilon": 0.2}, "epsilon: 0.02 on rank 0 but 0.2 on rank 1"),
        ({"cost": "euclid"}, "^on rank 1: cost is 'euclid'; expected one of"),
        ({"iterations": 0}, "^on rank 1: iterations is 0"),
        ({"iterations": 5}, "iterations: 20 on rank 0 but 5 on rank 1"),
        ({"rho": -1.0}, "^on rank 1: rho is -1.0"),
    ]
    second = dist.get_rank() == 1
    for bad, message in on_one:
        given = {"x_BRD": x, "y_BMD": y} | (bad if second else {})
        with pytest.raises(TransportError, match=message):
            sharded_cost(**given, group=dist.group.WORLD)
    none = torch.tensor([[True], [False]]).expand(2, 4)
    with pytest.raises(TransportError, match="no rank has a token of x in pair 1 of 2"):
        sharded_cost(x, y, none, group=dist.group.WORLD)
    with pytest.raises(TransportError, match=r"^on rank 0, 1: iterations is 0"):
        sharded_cost(x, y, group=dist.group.WORLD, iterations=0)


@pytest.mark.distributed
def test_rows_divided_among_two_ranks_give_the_undivided_cost_and_gradients():
    run_ranks("tests.unit.transport.test_sharded", "on_each_rank", timeout=120)


@pytest.mark.distributed
def test_a_rank_may_have_no_rows():
    run_ranks("tests.unit.transport.test_sharded", "without_rows_on_one_rank", timeout=120)


@pytest.mark.distributed
def test_bad_input_on_one_rank_raises_on_all_and_names_it():
    run_ranks("tests.unit.transport.test_sharded", "bad_input_on_the_second_rank", timeout=120)
