"""Who reads the captions in a study of vision towers."""

import yaml

from optical_scale.config.study import Study
from optical_scale.recipes.study_grid import grid

VIT = {"kind": "vision", "architecture": {"model_type": "vit"}}


def text(folder):
    return {"kind": "text", "pretrained": folder}


def write(path, values):
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def cell(folder, reader=None):
    measured = [{"name": "image_text", "shards": "i"}]
    train = {
        "run": "r",
        "teacher": {"backbone": text("english")},
        "student": {"backbone": VIT},
        "stream": {"sources": [{"shards": "i"}], "pairs_per_step": 2, "micro_batch_pairs": 2},
        "objective": {"name": "contrastive"},
        "optimization": {"steps": 1},
        "evaluation": measured,
    }
    study = {"output": folder / "study", "base": write(folder / "train.yaml", train), "axes": {"seed": [0]}}
    if reader is not None:
        stages = [{"name": "any", "student": text(reader)}]
        evaluate = {"output": "o", "teacher": text("english"), "stages": stages, "evaluation": measured}
        study["evaluate"] = write(folder / "evaluate.yaml", evaluate)
    (found,) = grid(Study.model_validate(study))
    return found


def test_the_teacher_reads_captions_unless_the_evaluation_names_a_reader(tmp_path):
    for reader in (None, "multilingual"):
        found = cell(tmp_path, reader)
        (stage,) = found.evaluate.stages
        assert str(stage.student.pretrained) == (reader or "english")
        assert found.evaluate.vision.pretrained == found.model


def test_another_reader_is_another_result(tmp_path):
    assert cell(tmp_path, "multilingual").identity != cell(tmp_path, "other").identity
    assert cell(tmp_path, "multilingual").identity == cell(tmp_path, "multilingual").identity
