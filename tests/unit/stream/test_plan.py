from collections import Counter

import pytest

from optical_scale.errors import StreamError
from optical_scale.runtime.world import World
from optical_scale.stream.mixing import Mixture, Portion
from optical_scale.stream.order import SampleOrder
from optical_scale.stream.plan import Row, StepPlan

SIZES = {"a": 30, "b": 70, "c": 500}


def plan(pairs_per_step=48, micro_batch_pairs=3, seed=1, sizes=SIZES):
    mixture = Mixture([Portion(name, f"l{name}", n) for name, n in sizes.items()], 2.0)
    orders = [SampleOrder(name, [n], seed) for name, n in sizes.items()]
    return StepPlan(mixture, orders, seed, pairs_per_step, micro_batch_pairs)


def step_rows(plan, step, size):
    """All rows of a step by micro-batch number, collected rank by rank."""
    found = {n: plan.rows(step, n) for rank in range(size) for n in plan.numbers(step, World(rank, size))}
    assert len(found) == plan.pairs_per_step // plan.micro_batch_pairs
    return [found[number] for number in sorted(found)]


@pytest.mark.parametrize("step", [0, 1, 9, 10**6])
@pytest.mark.parametrize("size", [1, 2, 4, 8, 16])
def test_a_step_is_its_draws_on_any_number_of_ranks(step, size):
    steps = plan()
    draws = [steps.mixture.draw(g) for g in range(step * 48, (step + 1) * 48)]
    expected = [
        Row(d.source, steps.orders[d.source].sample_at(d.k), d.k // list(SIZES.values())[d.source]) for d in draws
    ]
    batches = step_rows(steps, step, size)
    assert Counter(row for batch in batches for row in batch) == Counter(expected)
    assert batches == step_rows(steps, step, 1)


def test_another_micro_batch_size_keeps_the_set():
    for step in range(5):
        sets = [
            sorted(row for batch in step_rows(plan(micro_batch_pairs=µ), step, 1) for row in batch)
            for µ in (1, 2, 3, 6, 24, 48)
        ]
        assert all(other == sets[0] for other in sets)


@pytest.mark.parametrize(("size", "micro", "accumulation"), [(1, 3, 16), (2, 3, 8), (4, 12, 1), (16, 1, 3)])
def test_accumulation_and_numbers(size, micro, accumulation):
    steps = plan(micro_batch_pairs=micro)
    steps.check(World(0, size))
    for rank in range(size):
        assert list(steps.numbers(7, World(rank, size))) == [m * size + rank for m in range(accumulation)]


def test_ranks_get_about_the_same_languages():
    steps = plan(pairs_per_step=480, micro_batch_pairs=60)
    per_batch = [[row.source for row in batch].count(2) for batch in step_rows(steps, 0, 1)]
    whole = [row.source for batch in step_rows(steps, 0, 1) for row in batch].count(2) / 8
    assert all(abs(count - whole) < 15 for count in per_batch)
    assert len(set(per_batch)) > 1


def test_one_source_gives_each_sample_once_an_epoch():
    steps = plan(sizes={"a": 96})
    for first in (0, 2, 4):
        rows = [row for step in (first, first + 1) for batch in step_rows(steps, step, 2) for row in batch]
        assert sorted(row.sample for row in rows) == list(range(96))
        assert {row.epoch for row in rows} == {first // 2}


def test_fewer_samples_than_a_step_wrap_around():
    rows = [row for batch in step_rows(plan(sizes={"a": 5}), 0, 1) for row in batch]
    assert Counter(row.epoch for row in rows) == dict.fromkeys(range(9), 5) | {9: 3}


def test_seed_and_step_change_the_micro_batches():
    batches = [step_rows(plan(seed=seed), step, 1)[0] for seed in (1, 2) for step in (0, 1)]
    assert all(batches[i] != batches[j] for i in range(4) for j in range(i))


def test_what_does_not_divide_is_refused_with_the_arithmetic():
    with pytest.raises(StreamError, match="pairs_per_step 48 is not a positive multiple of micro_batch_pairs 5"):
        plan(micro_batch_pairs=5)
    with pytest.raises(StreamError, match="not a positive multiple of micro_batch_pairs 0"):
        plan(micro_batch_pairs=0)
    with pytest.raises(StreamError, match=r"48 = 5 ranks x 3 micro_batch_pairs x 3\.200 .* to 45 or 60"):
        plan().check(World(0, 5))
    with pytest.raises(StreamError, match="to 96, or"):
        plan().check(World(0, 32))
