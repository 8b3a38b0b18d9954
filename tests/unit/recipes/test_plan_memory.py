import itertools

import pytest

from optical_scale.cli.main import main
from optical_scale.config.loading import load
from optical_scale.config.run import TrainConfig
from optical_scale.recipes.announce import memory_of, tokens_of
from optical_scale.recipes.plan_memory import Layout, Memory, MemoryPlan
from tests.support.runs import Workshop
from tests.support.towers import write_tower

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


def test_inner_layers_are_kept_beside_the_outputs(workshop):
    def objective(*layers):
        part = {"weight": 1, "objective": {"name": "optimal_transport"}}
        return {"name": "mixture", "parts": [part, *(part | {"layers": one} for one in layers)]}

    def vectors(name, *layers):
        one = MemoryPlan(load(TrainConfig, workshop.config(name, objective=objective(*layers))))
        return one.memory(one.layout(1)).objective

    output = vectors("outputs")
    of_student = vectors("one_side", {"student": 1}) - output
    of_both = vectors("both_sides", {"student": 1, "teacher": 1}) - output
    # fp32 states of as many passages as pairs and as many tokens: as large on one side as on the other.
    assert of_student == 4 * 24 * 32 * (8 + 4)
    assert of_both == 2 * of_student
    assert vectors("twice", {"student": 1}, {"student": 1}) - output == of_student


def test_frozen_parts_have_neither_gradient_nor_optimizer(workshop):
    student = {"freeze": ["embeddings"]}
    frozen = MemoryPlan(load(TrainConfig, workshop.config("c", student=student)))
    table = (workshop.pieces + 40 + 2 + 2) * 32  # pieces, positions, token types, normalisation
    assert frozen.student.parameters - frozen.student.trained == table


def test_the_layouts_that_fit_are_listed_from_the_fastest_to_the_smallest(plan):
    whole = plan.memory(Layout(1, 0, **PLAIN)).total
    found = plan.fitting([1], 2 * whole)
    assert found[0] == (Layout(1, 0, **PLAIN), plan.memory(Layout(1, 0, **PLAIN)))
    totals = [memory.total for _, memory in found]
    assert all(later <= 0.9 * earlier for earlier, later in itertools.pairwise(totals))
    assert totals[-1] == min(totals)
    assert found[-1][0].offload_optimizer == "cpu"
    assert plan.fitting([1], int(0.8 * whole))[0][1].total < 0.72 * whole
    assert {layout.ranks for layout, _ in plan.fitting([2, 4], 2 * whole)} == {2, 4}
    assert plan.fitting([1, 2], 1000) == []


def test_command_line_prints_both_tables(workshop, capsys):
    assert main(["plan", "memory", str(workshop.config("d")), "--ranks", "1", "2", "--gib", "1"]) == 0
    output = capsys.readouterr().out
    configured, fitting = output.split("what leaves a tenth of 1 GiB free")
    assert configured.count("zero_stage=") == 2
    assert {line.split()[0] for line in fitting.splitlines() if "zero_stage=" in line} == {"1", "2"}
    assert main(["plan", "memory", str(workshop.config("e")), "--ranks", "1", "--gib", "0.0001"]) == 1
    assert "nothing fits" in capsys.readouterr().out


def test_every_tower_keeps_its_states_and_they_compute_in_turn(workshop, tmp_path):
    vit = {"model_type": "vit", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    vit |= {"intermediate_size": 48, "image_size": 32, "patch_size": 8}
    images = {"sources": [{"shards": str(tmp_path)}], "pairs_per_step": 8, "micro_batch_pairs": 8}
    plans = [
        MemoryPlan(load(TrainConfig, workshop.config(name, **sections)))
        for name, sections in (
            ("text", {}),
            ("vision", {"student": {"backbone": {"kind": "vision", "architecture": vit}}}),
            ("both", {"student": {"vision": {"kind": "vision", "architecture": vit}}, "stream": {"images": images}}),
        )
    ]
    _, vision, both = plans
    assert vision.student.tokens == 4 * 4 + 1
    assert list(both.students) == ["pairs", "images"]
    alone, with_images, together = (plan.memory(Layout(1, 1, **PLAIN)) for plan in plans)
    assert together.optimizer == alone.optimizer + with_images.optimizer
    assert both.students["images"].activations == pytest.approx(2 * vision.student.activations, rel=0.05)
    assert together.activations == max(alone.activations, both.students["images"].activations)


def test_a_teacher_of_images_has_their_tokens(workshop, tmp_path):
    model = write_tower(tmp_path / "siglip", "siglip")
    teacher = {"backbone": {"kind": "vision", "pretrained": str(tmp_path / "siglip")}}
    plan = MemoryPlan(load(TrainConfig, workshop.config("images", teacher=teacher)))
    assert (plan.student.tokens, plan.teacher_tokens) == (24, 5)
    assert plan.teacher.parameters == sum(parameter.numel() for parameter in model.vision_model.parameters())


def test_dropped_layers_and_a_new_vocabulary_count(tmp_path, workshop):
    from transformers import BertConfig, BertModel

    BertModel(
        BertConfig(vocab_size=900, hidden_size=32, num_hidden_layers=6, num_attention_heads=4, intermediate_size=48)
    ).save_pretrained(tmp_path / "bert")
    for file in (workshop.folder / "tokenizer").iterdir():
        (tmp_path / "bert" / file.name).write_bytes(file.read_bytes())
    folder, tokenizer = str(tmp_path / "bert"), str(workshop.folder / "tokenizer")
    whole, small = (
        MemoryPlan(load(TrainConfig, workshop.config(name, student={"backbone": {"kind": "text"} | backbone}))).student
        for name, backbone in (
            ("whole", {"pretrained": folder}),
            ("small", {"pretrained": folder, "layers": [0, 5], "tokenizer": tokenizer, "vocabulary": "match"}),
        )
    )
    layer = 4 * (32 * 32 + 32) + 2 * 32 * 48 + 48 + 32 + 4 * 32
    assert whole.parameters - small.parameters == 4 * layer + (900 - workshop.pieces) * 32
    assert 3 * small.activations == pytest.approx(whole.activations, rel=0.15)


def test_adapters_are_trained_alone_and_offload_moves_to_the_host(workshop):
    plan = MemoryPlan(load(TrainConfig, workshop.config("lora", student={"lora": {"rank": 2}})))
    inputs_and_outputs = 2 * (4 * 64 + 2 * (32 + 48))  # of the linear layers
    assert plan.student.trained == 2 * inputs_and_outputs
    memory = plan.memory(Layout(2, 2, "cpu", "none", activation_checkpointing=False))
    assert memory.optimizer == 0
    assert memory.host == 16 * (plan.student.trained // 2)


def test_what_is_told_at_the_start_adds_up(workshop):
    config = load(TrainConfig, workshop.config("told"))
    plan = MemoryPlan(config)
    told = tokens_of(plan, plan.student, config, ranks=2)
    assert told.startswith("student 4 x 24 + English 4 x 24 = at most 192 tokens in a micro-batch")
    assert told.endswith("192 on a rank and 384 in all in a step")
    memory = Memory(student=3 * 2**20, optimizer=2**30, host=2**29)
    assert memory_of(memory) == "1,027 MiB: optimizer 1,024 MiB, offloaded to the host 512 MiB, student 3 MiB"
