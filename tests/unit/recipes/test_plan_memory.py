import pytest

from optical_scale.cli.main import main
from optical_scale.config.loading import load
from optical_scale.config.run import TrainConfig
from optical_scale.recipes.plan_memory import Layout, MemoryPlan
from tests.support.runs import Workshop

PLAIN = {"offload_optimizer": "none", "offload_parameters": "none", "activation_checkpointing": False}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    return Workshop(tmp_path_factory.mktemp("memory"))


@pytest.fixture(scope="module")
def plan(workshop):
    return MemoryPlan(load(TrainConfig, workshop.config("a", student={"engine": {"precision": "bf16"}})))


def test_states_follow_the_published_arithmetic_of_zero(plan):
    parameters = plan.student.parameters
    assert plan.student.trained == parameters
    alone, second, third = (plan.memory(Layout(4, stage, **PLAIN)) for stage in (0, 2, 3))
    assert (alone.student, alone.gradients, alone.optimizer) == (2 * parameters, 2 * parameters, 12 * parameters)
    share = parameters // 4
    assert (second.student, second.gradients) == (2 * parameters, 2 * share)
    assert (third.student, third.gradients) == (2 * parameters // 4, 2 * share)
    assert third.teacher == 4 * plan.teacher.parameters // 4


def test_activations_are_those_of_autograd_and_grow_with_the_batch(workshop, plan):
    double = MemoryPlan(
        load(
            TrainConfig, workshop.config("b", student={"engine": {"precision": "bf16"}}), ["stream.micro_batch_pairs=8"]
        )
    )
    assert double.student.activations == pytest.approx(2 * plan.student.activations, rel=0.05)
    recomputed = Layout(1, 0, "none", "none", activation_checkpointing=True)
    assert plan.memory(recomputed).activations < plan.memory(Layout(1, 0, **PLAIN)).activations


def test_negatives_are_passages_beside_those_of_the_pairs(workshop):
    late = {"name": "mixture", "parts": [{"weight": 1, "objective": {"name": "contrastive"}}]}
    pairs, lists = (
        MemoryPlan(load(TrainConfig, workshop.config(f"n{n}", teacher=None, objective=late, stream={"negatives": n})))
        for n in (0, 6)
    )
    # Two texts of a pair become eight.
    assert lists.student.activations == pytest.approx(4 * pairs.student.activations, rel=0.05)


def test_frozen_parts_have_neither_gradient_nor_optimizer(workshop):
    student = {"freeze": ["embeddings"]}
    frozen = MemoryPlan(load(TrainConfig, workshop.config("c", student=student)))
    table = (workshop.pieces + 40 + 2 + 2) * 32  # pieces, positions, token types, normalisation
    assert frozen.student.parameters - frozen.student.trained == table


def test_the_fastest_layout_that_fits_is_listed_for_each_number_of_ranks(plan):
    whole = plan.memory(Layout(1, 0, **PLAIN)).total
    ((layout, memory),) = plan.fitting([1], 2 * whole)
    assert layout == Layout(1, 0, **PLAIN)
    assert memory.total == whole
    ((smaller, memory),) = plan.fitting([1], int(0.8 * whole))
    assert memory.total < 0.72 * whole
    assert smaller != layout
    assert plan.fitting([1, 2], 1000) == []


def test_command_line_prints_both_tables(workshop, capsys):
    assert main(["plan", "memory", str(workshop.config("d")), "--ranks", "1", "2", "--gib", "1"]) == 0
    output = capsys.readouterr().out
    assert output.count("zero_stage=") == 4
    assert main(["plan", "memory", str(workshop.config("e")), "--ranks", "1", "--gib", "0.0001"]) == 1
    assert "nothing fits" in capsys.readouterr().out
