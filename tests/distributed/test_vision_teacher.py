"""Towers of CLIP, SigLIP and DINOv2 in whole runs: as teacher of captions, and as student of captions."""

import json

import pytest
import torch
import yaml
from transformers import AutoModel

from optical_scale.config.export import ExportConfig
from optical_scale.recipes.export import export
from optical_scale.shards.writer import write_shards
from tests.distributed.test_towers import images
from tests.support.processes import TRAIN, finish, start
from tests.support.runs import Workshop, steps_of
from tests.support.towers import POSITIONS, write_tower

pytestmark = pytest.mark.distributed

LEARNING = {"steps": 4, "learning_rate": 0.005, "warmup": 0.0, "decay": "constant"}
OBJECTIVE = {
    "name": "mixture",
    "parts": [
        {"weight": 1.0, "objective": {"name": "optimal_transport", "epsilon": 0.05, "iterations": 10}},
        {"weight": 1.0, "objective": {"name": "contrastive", "late_interaction": 1.0}},
    ],
}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    torch.manual_seed(1)
    workshop = Workshop(tmp_path_factory.mktemp("vision"), pairs=4)
    write_shards(images(), workshop.folder / "images", 10)
    for name in ("clip", "siglip", "dinov2_with_registers"):
        write_tower(workshop.folder / name, name)
    return workshop


def run(workshop, name, teacher, student, processes, stage, **stream):
    folder = str(workshop.folder / "images")
    engine = {"zero_stage": stage, "persistent_parameters": 0}
    path = workshop.config(
        name,
        teacher={"backbone": teacher, "engine": {"zero_stage": stage, "persistent_parameters": 0}},
        student={"backbone": student, "engine": engine},
        stream={"sources": [{"shards": folder, **stream}], "pairs_per_step": 4, "micro_batch_pairs": 4 // processes},
        objective=OBJECTIVE,
        optimization=LEARNING,
        evaluation=[{"name": "image_text", "shards": folder}],
    )
    finish(start([*TRAIN, path], processes))
    return workshop.folder / name


def curve(run):
    return [values for _, values in sorted(steps_of(run, "loss", "gradient_norm").items())]


def test_images_teach_captions_of_several_languages(workshop):
    """SigLIP, whose pooling uses weights of a module that is never called, whole and in shares."""
    teacher = {"kind": "vision", "pretrained": str(workshop.folder / "siglip")}
    alone = run(workshop, "alone", teacher, workshop.backbone(0.0), 1, 0)
    shared = run(workshop, "shared", teacher, workshop.backbone(0.0), 2, 3)
    assert curve(shared) == [pytest.approx(values, rel=1e-4) for values in curve(alone)]
    state = json.loads((shared / "checkpoints/step_000004/train_state.json").read_text())
    assert state["pairs"] == {"de": 8, "en": 8}
    measured = {(result["language"], result["direction"]) for result in state["results"]}
    assert measured == {(tag, way) for tag in ("de", "en") for way in ("text_to_image", "image_to_text")}
    folder = export(ExportConfig(checkpoint=shared, output=workshop.folder / "student")).folder
    assert AutoModel.from_pretrained(folder).config.model_type == "xlm-roberta"


def test_clip_texts_teach_another_tower(workshop):
    teacher = {"kind": "text", "pretrained": str(workshop.folder / "clip"), "max_tokens": POSITIONS}
    student = {"kind": "vision", "pretrained": str(workshop.folder / "dinov2_with_registers"), "head": 24}
    alone = run(workshop, "dino", teacher, student, 1, 0)
    shared = run(workshop, "dino_shared", teacher, student, 2, 3)
    assert curve(shared) == [pytest.approx(values, rel=1e-4) for values in curve(alone)]
    folder = export(ExportConfig(checkpoint=shared, output=workshop.folder / "dino_student")).folder
    written = yaml.safe_load((folder / "preprocessor_config.json").read_text())
    assert (written["size"], written["crop_size"]["height"]) == ({"shortest_edge": 20}, 16)


def test_a_language_without_captions(workshop):
    teacher = {"kind": "vision", "pretrained": str(workshop.folder / "siglip")}
    with pytest.raises(AssertionError, match=r"nothing in language `fr`; it has de, en"):
        run(workshop, "french", teacher, workshop.backbone(0.0), 1, 0, languages=["fr"])
