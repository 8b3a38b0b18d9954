import pytest
import torch

from optical_scale.backbones.encoder import Encoder
from optical_scale.backbones.fresh import build_backbone
from optical_scale.config.deepspeed import derive_teacher
from optical_scale.config.engine import TeacherEngine as TeacherConfig
from optical_scale.engine.teacher import TeacherEngine
from optical_scale.errors import ConfigError
from optical_scale.recipes.build_towers import check_widths
from tests.support.runs import tiny_xlmr


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
