import random
from collections import Counter

import numpy as np
import pytest

from optical_scale.errors import StreamError
from optical_scale.runtime.world import World
from optical_scale.stream.buckets import Budget, by_length, cut_within, deal, pieces_within
from tests.unit.stream.support import bucketing, strand, three_sources

EPOCH = 144
BUDGETS = [Budget(tokens=120), Budget(transport=400), Budget(tokens=150, transport=300)]


def lengths(count, seed=0):
    dice = random.Random(seed)
    return np.array([(n := dice.randint(3, 40), max(1, n + dice.randint(-3, 6))) for _ in range(count)])


def uses(found, ends, budget):
    pieces = np.split(found, ends[:-1])
    return [budget.use(len(piece), *map(int, piece.max(axis=0))) for piece in pieces]


def test_neighbours_in_order_of_length_are_alike_on_both_sides():
    found = lengths(4000)
    ordered = found[by_length(found)]
    assert sorted(map(tuple, ordered)) == sorted(map(tuple, found))
    assert np.abs(np.diff(ordered, axis=0)).sum(1).mean() < 0.3


def cut(found, budget, unit):
    return cut_within(found, budget, pieces_within(found, budget, unit))


@pytest.mark.parametrize("budget", [Budget(tokens=500), Budget(transport=3000), Budget(tokens=500, transport=3000)])
@pytest.mark.parametrize("unit", [1, 4, 16])
def test_pieces_keep_the_budget_and_their_number_is_the_smallest_multiple(budget, unit):
    found = lengths(640)
    found = found[by_length(found)]
    ends = cut(found, budget, unit)
    assert ends == sorted(set(ends))
    assert ends[-1] == len(found)
    assert len(ends) % unit == 0
    assert max(uses(found, ends, budget)) <= 1
    fewest = len(cut(found, budget, 1))
    assert fewest <= len(ends) < fewest + unit


def test_pieces_are_even():
    found = lengths(640)
    found = found[by_length(found)]
    taken = uses(found, cut(found, Budget(tokens=2000), 8), Budget(tokens=2000))
    assert max(taken) < 1.15 * (sum(taken) / len(taken))


def test_as_many_pieces_as_pairs_are_possible():
    assert cut(np.array([(9, 9)] * 8), Budget(tokens=18), 8) == list(range(1, 9))
    assert cut(np.array([(9, 9)] * 8), Budget(tokens=10**6), 8) == list(range(1, 9))


def test_one_pair_above_the_budget_is_named():
    with pytest.raises(StreamError, match=r"50 English and 60 target tokens alone takes 1\.10 times the budget"):
        cut(np.array([(3, 3), (50, 60)]), Budget(tokens=100), 1)


def test_every_step_gets_one_piece_of_each_stretch_of_lengths():
    pieces = [np.array([i]) for i in range(24)]
    dealt = deal(pieces, list(range(24)), 6, seed=3)
    assert sorted(piece for step in dealt for piece in step) == list(range(24))
    assert all([piece // 6 for piece in step] == [3, 2, 1, 0] for step in dealt)
    assert dealt != deal(pieces, list(range(24)), 6, seed=4)


def plans():
    yield strand(bucketing=bucketing(), temperature=1.0).plan
    for budget in BUDGETS:
        yield strand(bucketing=bucketing(budget=budget, lanes=8, stretch=3), temperature=1.0).plan


@pytest.mark.parametrize("plan", list(plans()))
def test_every_pair_exactly_once_an_epoch(plan):
    for epoch in range(3):
        steps = range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch)
        rows = Counter(row for step in steps for n in plan.numbers(step, World()) for row in plan.rows(step, n))
        assert rows.total() == EPOCH
        assert set(rows.values()) == {1}
        assert {row.epoch for row in rows} == {epoch}


@pytest.mark.parametrize("plan", list(plans()))
@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_ranks_have_equally_many_micro_batches_of_about_equal_length(plan, size):
    plan.check(World(0, size))
    for step in range(20):
        mine = [plan.numbers(step, World(rank, size)) for rank in range(size)]
        assert len({len(numbers) for numbers in mine}) == 1
        assert sorted(n for numbers in mine for n in numbers) == list(plan.numbers(step, World()))
        assert all(plan.rows(step, n) for n in plan.numbers(step, World()))


@pytest.mark.parametrize("budget", BUDGETS)
def test_batches_keep_the_budget(budget):
    plan = strand(bucketing=bucketing(budget=budget, lanes=4, stretch=3)).plan
    for step in range(40):
        block = plan.block(step)
        for batch in block.steps[step - block.first]:
            assert budget.use(len(batch), *map(int, block.lengths_P2[batch].max(axis=0))) <= 1


def test_blocks_end_with_the_epoch():
    plan = strand(bucketing=bucketing(look_ahead=64)).plan  # 4 steps together, 9 an epoch
    assert [plan.first_of_block(step) for step in range(19)] == [0] * 4 + [4] * 4 + [8] + [9] * 4 + [13] * 4 + [17, 18]


def test_counts_inside_a_block_are_those_of_the_pairs_handed_out():
    sources = three_sources()
    plan = strand(bucketing=bucketing(budget=BUDGETS[0], lanes=2, stretch=3)).plan
    counted = Counter({"de": 0, "sw": 0})
    for step in range(21):
        assert plan.drawn(step) == counted
        counted.update(sources[row.source].language for n in plan.numbers(step, World()) for row in plan.rows(step, n))


def test_what_does_not_fit_is_refused():
    with pytest.raises(StreamError, match="either micro_batch_pairs or a budget"):
        strand(bucketing=bucketing(budget=BUDGETS[0]), micro_batch_pairs=2)
    with pytest.raises(StreamError, match="16 is not a positive multiple of lanes 5"):
        strand(bucketing=bucketing(budget=BUDGETS[0], lanes=5))
    with pytest.raises(StreamError, match=r"8 lanes cannot be dealt to 3 ranks; .* for example 9"):
        strand(bucketing=bucketing(budget=BUDGETS[0], lanes=8)).plan.check(World(0, 3))
