import pytest

from optical_scale.runtime.world import World
from optical_scale.stream.buckets import Budget
from optical_scale.stream.forecast import shape, shards_per_node
from tests.unit.stream.support import COLLATE, CharacterLengths, bucketing, strand, three_sources

LENGTHS = CharacterLengths(three_sources())


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize(
    "settings",
    [{}, {"bucketing": bucketing()}, {"bucketing": bucketing(budget=Budget(tokens=120), lanes=8)}],
)
def test_the_forecast_is_what_the_tensors_show(settings, ranks):
    made = strand(**settings)
    found = shape(made.plan, LENGTHS, range(9), ranks)
    padded = real = 0
    waited, worked = 0, 0
    for step in range(9):
        ready = [
            [
                COLLATE([made.sources[row.source][row.sample] for row in made.plan.rows(step, number)])
                for number in made.plan.numbers(step, World(rank, ranks))
            ]
            for rank in range(ranks)
        ]
        for together in zip(*ready, strict=True):
            costs = [batch.source.ids_BT.numel() + batch.target.ids_BT.numel() for batch in together]
            padded += sum(costs)
            real += sum(int((batch.source.ids_BT > 0).sum() + (batch.target.ids_BT > 0).sum()) for batch in together)
            waited, worked = waited + max(costs) * ranks, worked + sum(costs)
    assert found.pairs == 144
    assert found.padding == pytest.approx(1 - real / padded)
    assert found.balance == pytest.approx(worked / waited)


def test_a_budget_pads_less_and_balances_better():
    found = CharacterLengths(three_sources(), stretch=3)
    budget = bucketing(look_ahead=144, budget=Budget(tokens=60), lanes=4, stretch=3)
    plain, cut = (shape(strand(**how).plan, found, range(9), 4) for how in ({}, {"bucketing": budget}))
    assert cut.padding < plain.padding / 2
    assert cut.balance > plain.balance


def test_shards_of_a_node():
    assert shards_per_node([(5, 1), (7,)], 1) == 3
    assert shards_per_node([(1,)] * 100, 4) == pytest.approx(25)
    assert shards_per_node([(20_000,) * 10], 512) == pytest.approx(10)
