import pytest
import torch.distributed as dist

from optical_scale.errors import ShardError, StreamError
from optical_scale.training.faults import take_together
from tests.support.processes import run_ranks
from tests.unit.training.test_step import pairs


def test_reasons_are_counted():
    batch = pairs([1, 2]).without(["bad image", "missing shard", "bad image"])
    batches, skipped = take_together(lambda: [batch, pairs([3])])
    assert skipped == {"bad image": 2, "missing shard": 1}
    assert len(batches) == 2
    assert take_together(lambda: [pairs([3])])[1] == {}


def both():
    rank = dist.get_rank()
    reasons = ["damaged sample"] * (rank + 1)
    assert take_together(lambda: [pairs([1]).without(reasons)])[1] == {"damaged sample": 3}

    def take():
        if rank == 1:
            raise ShardError("the shard is gone")
        return [pairs([1])]

    with pytest.raises(ShardError if rank == 1 else StreamError, match="gone" if rank == 1 else "1 other rank"):
        take_together(take)


@pytest.mark.distributed
def test_two_ranks_agree():
    run_ranks("tests.unit.training.test_faults", "both")
