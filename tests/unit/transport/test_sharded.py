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
    x_BRD = x_BRD.detach()
    if dist.get_rank() == 1:
        x_BRD[0, 0, 0] = torch.inf
    with pytest.raises(TransportError, match=r"x holds NaN or infinity.*on some rank of 2"):
        sharded_cost(x_BRD, y_BMD, batch.mask_x_BN[:, rows], batch.mask_y_BM, group=dist.group.WORLD)


@pytest.mark.distributed
def test_rows_divided_among_two_ranks_give_the_undivided_cost_and_gradients():
    run_ranks("tests.unit.transport.test_sharded", "on_each_rank", timeout=120)
