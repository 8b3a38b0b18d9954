"""A stream in sections: everything that holds without them, and that a node reads its own part of the corpus."""

from collections import Counter

import numpy as np
import pytest

from optical_scale.errors import ResumeError, StreamError
from optical_scale.runtime.world import World
from optical_scale.stream.buckets import Budget
from optical_scale.stream.forecast import shards_per_node
from optical_scale.stream.mixing import Mixture, Portion
from optical_scale.stream.order import REGION, WINDOW, SampleOrder
from optical_scale.stream.plan import StepPlan
from tests.unit.stream.support import ListSource, bucketing, loader, run, strand

BUDGET = {"bucketing": bucketing(budget=Budget(tokens=120), lanes=8)}


def big(nodes, shards=400, samples=5000, pairs_per_step=4096):
    """One source that is large enough for its parts to lie apart."""
    order = SampleOrder("x", [samples] * shards, 0, nodes)
    return StepPlan(Mixture([Portion("x", "sw", order.pairs)]), [order], 0, pairs_per_step, 64)


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
@pytest.mark.parametrize("sizes", [(1,), (5, 0, 3), (100,) * 9, (WINDOW + 1, 40), (9000, 3, 12000)])
def test_all_parts_together_give_every_sample_once_an_epoch(sizes, parts):
    order = SampleOrder("x", sizes, 3, parts)
    turns = -(-3 * order.pairs // parts) + 1
    given = [order.samples(0, turns, part) for part in range(parts)]
    draws = [(int(i[k]), int(e[k])) for k in range(turns) for i, e in given][: 3 * order.pairs]
    for epoch in range(3):
        mine = draws[epoch * order.pairs : (epoch + 1) * order.pairs]
        assert {e for _, e in mine} == {epoch}
        assert sorted(i for i, _ in mine) == list(range(order.pairs))
    assert [order.sample_at(k) for k in range(len(draws))] == [i for i, _ in draws]


def test_a_part_covers_its_own_shards():
    order = SampleOrder("x", [5000] * 400, 0, 8)
    assert WINDOW <= order.region <= 250_000 // 8 < REGION
    shards = [set((order.samples(0, 250_000, part)[0] // 5000).tolist()) for part in range(8)]
    assert max(map(len, shards)) < 1.2 * 400 / 8
    again = [set((order.samples(250_000, 500_000, part)[0] // 5000).tolist()) for part in range(8)]
    assert shards != again, "the next epoch deals the shards anew"


@pytest.mark.parametrize("settings", [{}, {"bucketing": bucketing()}, BUDGET])
@pytest.mark.parametrize("nodes", [2, 4])
def test_batches_do_not_depend_on_ranks_and_every_pair_comes_once(settings, nodes):
    source = [ListSource("a", "sw", 96, (30, 66))]
    given = {"sources": source, "canonical_nodes": nodes, **settings}
    if "bucketing" in settings:
        how = settings["bucketing"]
        given["bucketing"] = bucketing(budget=how.budget, lanes=how.lanes, sources=source)
    alone, state = run(1, 6, **given)
    keys = Counter(key for step in alone for batch in step for key in batch[0])
    assert keys == Counter(f"a-{i}" for i in range(96))
    assert state["draws"] == 96
    for size in (2, 4, 8):
        steps, other = run(size, 6, **given)
        assert other == state
        for mine, theirs in zip(alone, steps, strict=True):
            assert sorted(mine) == sorted(theirs)


@pytest.mark.parametrize("settings", [{}, {"bucketing": bucketing()}, BUDGET])
@pytest.mark.parametrize(("before", "after", "workers"), [(1, 4, 0), (4, 2, 1), (8, 1, 0), (2, 8, 0)])
def test_resume_on_other_ranks_continues_exactly(settings, before, after, workers):
    given = {"canonical_nodes": 4, **settings}
    whole, last = run(1, 9, **given)
    for cut in (1, 3, 6):
        _, state = run(before, cut, workers, **given)
        steps, end = run(after, 9 - cut, state=state, **given)
        assert end == last
        for mine, theirs in zip(whole[cut:], steps, strict=True):
            assert sorted(mine) == sorted(theirs)


def test_ranks_of_a_node_share_a_section_and_sections_stay_apart():
    plan = big(nodes=4)
    for size in (2, 4, 8, 64):
        plan.check(World(0, size))
        numbers = [plan.numbers(0, World(rank, size)) for rank in range(size)]
        assert sorted(n for mine in numbers for n in mine) == list(range(64))
        sections = [{n % 4 for n in mine} for mine in numbers]
        if size >= 4:
            assert sections == [{rank // (size // 4)} for rank in range(size)]
        else:
            assert all(len(mine) == 2 for mine in sections)


@pytest.mark.parametrize(("sections", "nodes"), [(1, 4), (4, 4), (4, 8), (8, 4)])
def test_the_forecast_of_shards_is_what_a_node_reads(sections, nodes):
    plan = big(sections, shards=100, samples=8000)
    world = World(0, nodes)
    read = {
        row.sample // 8000
        for step in range(plan.steps_per_epoch - 1)
        for number in plan.numbers(step, world)
        for row in plan.rows(step, number)
    }
    expected = shards_per_node([[8000] * 100], nodes, sections)
    assert len(read) == pytest.approx(expected, rel=0.15)
    assert expected < 40 or sections == 1


def test_languages_keep_their_shares():
    made = strand(temperature=3.0, canonical_nodes=4)
    exposure = made.plan.exposure(20)
    counted = Counter(
        made.sources[row.source].language
        for step in range(20)
        for number in made.plan.numbers(step, World())
        for row in made.plan.rows(step, number)
    )
    assert counted == {row.language: row.draws for row in exposure}
    assert sum(counted.values()) == 20 * 16
    for row in exposure:
        assert row.draws == pytest.approx(row.probability * 320, abs=4 * 1.68)
        assert row.epochs == row.draws / row.pairs


def test_what_does_not_fit_is_refused():
    with pytest.raises(StreamError, match=r"8 lanes .* cannot be dealt to 3 canonical_nodes; .* for example 9 lanes"):
        strand(canonical_nodes=3)
    with pytest.raises(StreamError, match="4 ranks neither divide 6 canonical_nodes nor are a multiple"):
        strand(canonical_nodes=6, pairs_per_step=24).plan.check(World(0, 4))
    _, state = run(1, 2, canonical_nodes=2)
    with pytest.raises(ResumeError, match="canonical_nodes was 2, is 1"):
        loader().restore(state)


def test_planning_costs_a_rank_its_own_section(monkeypatch):
    plan = big(nodes=8)
    asked = []
    original = SampleOrder.samples
    monkeypatch.setattr(SampleOrder, "samples", lambda o, a, b, part=0: asked.append(part) or original(o, a, b, part))
    for number in plan.numbers(3, World(17, 64)):
        assert len(plan.rows(3, number)) == 64
    assert asked == [2]
    assert np.unique([row.epoch for row in plan.rows(3, 2)]).tolist() == [0]
