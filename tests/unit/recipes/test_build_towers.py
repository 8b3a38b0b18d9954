import pytest
import torch

from optical_scale.backbones.encoder import Encoder
from optical_scale.backbones.fresh import build_backbone
from optical_scale.backbones.vision import ImageTransform
from optical_scale.config.run import TrainConfig
from optical_scale.engine.teacher import TeacherEngine
from optical_scale.errors import ConfigError
from optical_scale.recipes.build_models import english_tokenizer, text_tokenizer
from optical_scale.recipes.build_towers import Tower, check_widths
from tests.support.corpus import write_tokenizer
from tests.support.runs import tiny_xlmr
from tests.unit.engine.test_teacher import PLAIN


def test_another_width_than_the_teachers_is_refused_before_training():
    backbone = build_backbone(tiny_xlmr(16))
    teacher = TeacherEngine(Encoder(backbone, 32, None), PLAIN, torch.device("cpu"))
    towers = [
        Tower(name, TrainConfig.model_construct(), {}, Encoder(backbone, 32, head), ImageTransform(8))
        for name, head in (("pairs", None), ("images", 16))
    ]
    check_widths(teacher, towers[:1])
    check_widths(None, towers)
    with pytest.raises(ConfigError, match=r"student\.vision\.head: .* have width 16, the teacher's 32; set it to 32"):
        check_widths(teacher, towers)
    with pytest.raises(ConfigError, match=r"student\.backbone\.head: "):
        check_widths(teacher, towers[1:])


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
    assert english_tokenizer(config)(["ki"]).ids_BT.tolist() == expected[english]
    assert tower.reads(["ki"]).ids_BT.tolist() == expected[target]
    assert tower.prepare is tokenize
    alone = TrainConfig.model_validate(values | {"teacher": None})
    assert english_tokenizer(alone)(["ki"]).ids_BT.tolist() == expected["passages"]
