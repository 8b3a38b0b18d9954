"""`optical-scale plan data` on a small run."""

import time

import pytest

from optical_scale.cli.main import main
from optical_scale.config.loading import load
from optical_scale.config.run import TrainConfig
from optical_scale.recipes.plan_data import plan_data
from tests.support.runs import Workshop

BUDGET = ["stream.micro_batch_pairs=null", "stream.bucketing={look_ahead: 32, transport: 600, lanes: 2}"]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    return Workshop(tmp_path_factory.mktemp("plan"))


def test_steps_exposure_and_ranks(workshop):
    plan = plan_data(load(TrainConfig, workshop.config("a"), ["stream.temperature=5"]), [1, 2, 3], per_node=1)["pairs"]
    assert (plan.steps, plan.steps_per_epoch, plan.examined, plan.shards) == (6, 12, 1, 2)
    assert {row.language: (row.pairs, row.draws, row.epochs) for row in plan.exposure} == {
        "de": (48, 24, 0.5),
        "sw": (48, 24, 0.5),
    }
    alone, two, three = plan.worlds
    assert (alone.shape.pairs, alone.shape.micro_batches, alone.shape.balance) == (8, 2, 1.0)
    assert two.shape.balance <= 1.0
    assert (alone.pairs, two.pairs) == (96, 48)
    assert "8 = 3 ranks x 4 micro_batch_pairs x 0.667" in three.problem
    assert three.shape is None


def test_a_budget_and_whole_epochs(workshop):
    given = [*BUDGET, "optimization.epochs=2", "optimization.steps=null"]
    plan = plan_data(load(TrainConfig, workshop.config("a"), given), [2], blocks=2)["pairs"]
    assert (plan.steps, plan.look_ahead, plan.examined) == (24, 4, 8)
    assert [row.epochs for row in plan.exposure] == [2, 2]
    assert plan.worlds[0].shape.pairs == 64


def test_phases_of_a_curriculum_begin_at_their_step_in_every_section(workshop):
    given = ["stream.weights={de: 3, sw: 1}", "stream.curriculum=[{from_step: 3, weights: {de: 1, sw: 3}}]"]
    for nodes in (1, 2):
        config = load(TrainConfig, workshop.config("a"), [*given, f"stream.canonical_nodes={nodes}"])
        plan = plan_data(config, [2], blocks=0)["pairs"]
        assert {row.language: row.draws for row in plan.exposure} == {"de": 24, "sw": 24}


def test_the_command_prints_a_table_and_says_what_cannot_run(workshop, capsys):
    path = str(workshop.config("a"))
    assert main(["plan", "data", path, *BUDGET, "--ranks", "1", "2"]) == 0
    assert "epochs" in capsys.readouterr().out
    started = time.monotonic()
    assert main(["plan", "data", path, "--blocks", "0", "--ranks", "1", "4096"]) == 1
    assert time.monotonic() - started < 10
    assert "4096  pairs_per_step 8 = 4096 ranks x 4" in capsys.readouterr().out
