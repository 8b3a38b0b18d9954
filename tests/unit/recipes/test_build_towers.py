import pytest
import torch

from optical_scale.backbones.encoder import Encoder
from optical_scale.backbones.fresh import build_backbone
from optical_scale.backbones.vision import ImageTransform
from optical_scale.config.run import TrainConfig
from optical_scale.engine.teacher import TeacherEngine
from optical_scale.errors import ConfigError
from optical_scale.recipes.build_towers import Tower, check_widths
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
