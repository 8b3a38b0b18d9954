import pickle

import numpy as np
import pytest

from optical_scale.errors import StreamError
from optical_scale.stream import order
from optical_scale.stream.order import BLOCK, REGION, WINDOW, SampleOrder, shuffled
from optical_scale.stream.source import PIECE, shard_sizes
from tests.unit.stream.support import ListSource


def epoch(sizes, number=0, seed=0, name="x"):
    source = SampleOrder(name, sizes, seed)
    return [source.sample_at(k) for k in range(number * source.pairs, (number + 1) * source.pairs)]


@pytest.mark.parametrize(
    "sizes",
    [
        (1,),
        (2,),
        (1, 1, 1),
        (5, 0, 3),
        (0, 7),
        (100,) * 9,
        (WINDOW,),
        (WINDOW + 1,),
        (9000, 3, 12000),
        (BLOCK + 1, 700),
    ],
)
def test_every_sample_exactly_once_an_epoch(sizes):
    for number in (0, 1, 7):
        assert sorted(epoch(sizes, number)) == list(range(sum(sizes)))


def test_epoch_seed_and_name_each_change_the_order():
    orders = [epoch((50, 50)), epoch((50, 50), number=1), epoch((50, 50), seed=1), epoch((50, 50), name="y")]
    assert all(orders[i] != orders[j] for i in range(4) for j in range(i))


def test_order_is_frozen():
    # Checkpoints of older releases point into this order: a change here needs a new version of the stream state.
    assert shuffled(8, 42).tolist() == [7, 1, 6, 4, 3, 5, 0, 2]
    assert epoch((4, 3, 5), seed=3, name="sw") == [4, 10, 11, 7, 6, 2, 1, 8, 0, 9, 3, 5]


def test_draws_do_not_depend_on_what_was_asked_before():
    sizes = (3000,) * 20
    forwards = SampleOrder("x", sizes, 0)
    wanted = {k: forwards.sample_at(k) for k in range(0, 300_000, 997)}
    scattered = SampleOrder("x", sizes, 0)
    for k in np.random.default_rng(0).permutation(list(wanted)).tolist():
        assert scattered.sample_at(k) == wanted[k]
    assert [pickle.loads(pickle.dumps(forwards)).sample_at(k) for k in wanted] == list(wanted.values())


def test_reading_stays_in_few_shards():
    source = SampleOrder("x", [50_000] * 100, 0)
    regions = [{source.sample_at(k) // 50_000 for k in range(r * REGION, (r + 1) * REGION, 61)} for r in range(4)]
    assert max(map(len, regions)) <= REGION // 50_000 + 3
    window = np.sort([source.sample_at(k) for k in range(WINDOW)])
    assert np.mean(np.diff(window) == 1) > 0.99  # a window is read in runs of neighbours


def test_corpora_one_behind_the_other_are_mixed_from_the_start():
    first = np.array([SampleOrder("x", [12_000 + 4_000], 0).sample_at(k) for k in range(4000)])
    assert 0.15 < np.mean(first >= 12_000) < 0.35


def test_neighbours_are_separated():
    indices = np.array(epoch((1000,) * 8))
    assert np.mean(np.abs(np.diff(indices)) == 1) < 0.01


def test_a_billion_pairs_cost_one_sort_of_shards_and_windows(monkeypatch):
    sorted_numbers = []
    monkeypatch.setattr(order, "shuffled", lambda n, seed: sorted_numbers.append(n) or shuffled(n, seed))
    source = SampleOrder("x", [10_000] * 100_000, 0)
    start = 4096 * 1_000_000
    indices = [source.sample_at(k) for k in range(start, start + 4096)]
    assert len(set(indices)) == 4096
    assert sorted_numbers == [WINDOW, REGION // BLOCK, 100_000] or sorted_numbers == [
        WINDOW,
        REGION // BLOCK,
        100_000,
        WINDOW,
    ]


def test_memory_is_bounded():
    source = SampleOrder("x", (WINDOW,) * 40, 0)
    for k in range(0, 100 * WINDOW, WINDOW):
        source.sample_at(k)
    assert len(source._regions._values) == 2
    assert len(source._windows._values) == 16
    assert len(source._epochs._values) == 2


def test_shard_sizes_come_from_the_source_or_are_pieces():
    class Plain:
        name, language = "plain", "sw"

        def __len__(self):
            return 2 * PIECE + 5

    assert shard_sizes(Plain()) == (PIECE, PIECE, 5)
    assert shard_sizes(ListSource("a", "sw", 5, (2, 3))) == (2, 3)
    with pytest.raises(StreamError, match=r"'a' has 5 samples but its 2 shards hold 6"):
        shard_sizes(ListSource("a", "sw", 5, (2, 4)))
