import pytest
import torch
import torch.distributed as dist

from optical_scale.runtime.collectives import (
    any_rank,
    barrier,
    broadcast_object,
    gather_integers,
    gather_rows,
    gather_rows_together,
    send_home,
    sum_over_ranks,
    visits,
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
    assert gather_integers([5, 2]) == ((5,), (2,))
    assert [(rank, seen is rows) for rank, seen in visits(rows, (2,))] == [(0, True)]
    assert send_home(rows, 0) is rows
    barrier()


def exchange():
    rank = dist.get_rank()
    mine = torch.tensor([float(rank), 1.0], requires_grad=True)
    assert sum_over_ranks(mine).tolist() == [1.0, 2.0]
    assert mine.tolist() == [float(rank), 1.0]
    assert any_rank(rank == 1)
    assert not any_rank(False)
    assert broadcast_object({"from": rank}) == {"from": 0}
    assert gather_integers([3 + rank, 7 * rank]) == ((3, 4), (0, 7))


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


def together():
    """Two tensors with uneven rows, of which only the second has a gradient."""
    rank = dist.get_rank()
    counts = (1, 3)
    flat = torch.full((counts[rank],), float(rank))
    cube = torch.full((counts[rank], 2, 2), 1.0 + rank, requires_grad=True)
    all_flat, all_cube = gather_rows_together([flat, cube])
    assert all_flat.tolist() == [0.0, 1.0, 1.0, 1.0]
    assert all_cube.shape == (4, 2, 2)
    ((rank + 1) * (all_cube * torch.arange(4.0)[:, None, None]).sum()).backward()
    expected = torch.arange(4.0)[sum(counts[:rank]) : sum(counts[: rank + 1])]
    assert cube.grad[:, 0, 1].tolist() == (3 * expected).tolist()


def in_turns():
    """Rank 1 has two rows, rank 0 none; what visitors gather goes home."""
    rank = dist.get_rank()
    mine = torch.full((2 * rank, 3), 5.0)
    seen = list(visits(mine, (0, 2)))
    assert [(who, rows.tolist()) for who, rows in seen] == [(1, [[5.0] * 3] * 2)]
    home = send_home(torch.full((2, 3), rank + 1.0), 1)
    assert (home is None) == (rank == 0)
    assert home is None or home.tolist() == [[3.0] * 3] * 2


@pytest.mark.distributed
@pytest.mark.parametrize("function", ["exchange", "gather", "together", "in_turns"])
def test_two_processes(function):
    run_ranks("tests.unit.runtime.test_collectives", function)
