import pytest
import torch

from optical_scale.backbones.encoder import Encoder
from optical_scale.backbones.fresh import build_backbone
from optical_scale.config.deepspeed import derive_teacher
from optical_scale.config.engine import TeacherEngine as TeacherConfig
from optical_scale.config.run import TrainConfig
from optical_scale.engine.teacher import TeacherEngine
from optical_scale.errors import ConfigError
from optical_scale.recipes.build_inputs import teachers_side, text_tokenizer
from optical_scale.recipes.build_towers import Tower, check_widths
from tests.support.corpus import write_tokenizer
from tests.support.runs import tiny_xlmr


@pytest.mark.parametrize("english", ["queries", "passages"])
@pytest.mark.parametrize("target", ["queries", "passages"])
def test_each_side_of_a_training_is_read_as_told(tmp_path, english, target):
    pieces = write_tokenizer(tmp_path / "t")
    backbone = {"kind": "text", "architecture": tiny_xlmr(pieces), "tokenizer": str(tmp_path / "t")}
    backbone |= {"prefix": "ba ", "passage_prefix": "do "}
    values = {
        "run": "r",
        "teacher": {"backbone": backbone, "reads": english},
        "student": {"backbone": backbone, "reads": target},
        "stream": {"sources": [{"shards": "s"}], "pairs_per_step": 8, "micro_batch_pairs": 8},
        "objective": {"name": "mse"},
        "optimization": {"steps": 1},
    }
    config = TrainConfig.model_validate(values)
    tokenize = text_tokenizer(config.student.backbone)
    expected = {
        "queries": tokenize(["ki"]).ids_BT.tolist(),
        "passages": tokenize.for_passages()(["ki"]).ids_BT.tolist(),
    }
    assert expected["queries"] != expected["passages"]
    tower = Tower("pairs", config, {}, Encoder(build_backbone(tiny_xlmr(pieces)), 32, None), tokenize)
    assert teachers_side(config)(["ki"]).ids_BT.tolist() == expected[english]
    assert tower.reads(["ki"]).ids_BT.tolist() == expected[target]
    assert tower.prepare is tokenize
    alone = TrainConfig.model_validate(values | {"teacher": None})
    assert teachers_side(alone)(["ki"]).ids_BT.tolist() == expected["passages"]


def test_students_of_another_width_than_the_teacher_are_refused():
    backbone = build_backbone(tiny_xlmr(20))
    wide, fitting = Encoder(backbone, 32, None), Encoder(backbone, 32, 24)
    derived = derive_teacher(TeacherConfig(zero_stage=0), micro_batch_pairs=1, bucket_elements=1)
    teacher = TeacherEngine(fitting, derived, torch.device("cpu"))
    check_widths(teacher, {"pairs": fitting, "images": fitting})
    check_widths(None, {"pairs": wide})
    with pytest.raises(ConfigError, match=r"^student.backbone: .* width 32, the teacher's 24; set student.backbone.he"):
        check_widths(teacher, {"pairs": wide})
    with pytest.raises(ConfigError, match=r"^student.vision: .* set student.vision.head=24"):
        check_widths(teacher, {"pairs": fitting, "images": wide})
