import pytest
import torch
import torch.distributed as dist

from optical_scale.runtime.collectives import (
    any_rank,
    barrier,
    broadcast_object,
    gather_rows,
    largest_over_ranks,
    sum_over_ranks,
)
from tests.support.processes import run_ranks


def test_one_process_is_the_identity():
    rows = torch.randn(2, 3, requires_grad=True)
    assert gather_rows(rows) is rows
    total = sum_over_ranks(rows)
    assert torch.equal(total, rows)
    assert not total.requires_grad
    total += 1
    assert not torch.equal(total, rows)
    assert any_rank(True)
    assert not any_rank(False)
    assert broadcast_object({"a": 1}) == {"a": 1}
    assert largest_over_ranks(5) == 5
    barrier()


def exchange():
    rank = dist.get_rank()
    mine = torch.tensor([float(rank), 1.0], requires_grad=True)
    assert sum_over_ranks(mine).tolist() == [1.0, 2.0]
    assert mine.tolist() == [float(rank), 1.0]
    assert any_rank(rank == 1)
    assert not any_rank(False)
    assert broadcast_object({"from": rank}) == {"from": 0}
    assert largest_over_ranks(3 + rank) == 4


def gather():
    """Rank r's loss is (r + 1) times the sum of squares of all rows, so the whole loss is 3 times that."""
    rank = dist.get_rank()
    rows = (torch.arange(6.0).reshape(2, 3) + 10 * rank).requires_grad_()
    gathered = gather_rows(rows)
    assert gathered.tolist() == [[0, 1, 2], [3, 4, 5], [10, 11, 12], [13, 14, 15]]
    ((rank + 1) * gathered.square().sum()).backward()
    torch.testing.assert_close(rows.grad, 3 * 2 * rows.detach())
    # Rows that are not contiguous, as from a transposition.
    turned = (torch.arange(6.0).reshape(3, 2) + 10 * rank).requires_grad_()
    gathered = gather_rows(turned.T)
    assert gathered[2 * (1 - rank)].tolist() == [10.0 - 10 * rank, 12.0 - 10 * rank, 14.0 - 10 * rank]
    gathered[2 * rank].sum().backward()
    assert turned.grad.tolist() == [[1.0, 0.0]] * 3


@pytest.mark.distributed
@pytest.mark.parametrize("function", ["exchange", "gather"])
def test_two_processes(function):
    run_ranks("tests.unit.runtime.test_collectives", function)
