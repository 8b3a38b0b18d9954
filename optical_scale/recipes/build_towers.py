"""The student's towers: one, or one for text and one for images."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from optical_scale.backbones.encoder import Encoder
from optical_scale.backbones.tokenizers import TextTokenizer
from optical_scale.backbones.vision import ImageTransform
from optical_scale.config.run import TrainConfig
from optical_scale.engine.teacher import Teacher
from optical_scale.engine.towers import Student, TwoTowers
from optical_scale.errors import ConfigError
from optical_scale.recipes.build_engines import build_student, start_student, student_engine_config
from optical_scale.recipes.build_inputs import students_side
from optical_scale.runtime.world import World


class Tower(NamedTuple):
    """One tower before its engine starts.

    Attributes:
        name: of the strand that it reads.
        config: what it would be as a run of its own.
        derived: DeepSpeed's dictionary.
        module: the network.
        prepare: makes its inputs.
    """

    name: str
    config: TrainConfig
    derived: dict[str, Any]
    module: Encoder
    prepare: TextTokenizer | ImageTransform

    @property
    def reads(self) -> TextTokenizer | ImageTransform:
        """What makes its inputs in training."""
        return students_side(self.prepare, self.config.student)


def build_towers(config: TrainConfig, world: World) -> list[Tower]:
    """The networks, kept as their engines will keep them; the text tower of two comes first.

    Raises:
        ConfigError: sizes that do not divide.
    """
    built: list[Tower] = []
    for name, part in config.towers().items():
        derived = student_engine_config(part, world)
        if not built:
            built.append(Tower(name, part, derived, *build_student(part, derived)))
            continue
        with torch.random.fork_rng(devices=()):  # a fresh network starts as it would in a run of its own
            torch.manual_seed(config.seed)
            built.append(Tower(name, part, derived, *build_student(part, derived)))
    return built


def check_widths(teacher: Teacher | None, towers: Mapping[str, Encoder]) -> None:
    """Vectors are compared, so they have to be equally wide.

    Args:
        teacher: None if the student reads both sides.
        towers: the networks, by strand.

    Raises:
        ConfigError: they are not.
    """
    if teacher is None:
        return
    for name, module in towers.items():
        if module.width != teacher.width:
            where = "student.vision" if name == "images" and len(towers) > 1 else "student.backbone"
            raise ConfigError(
                f"{where}: its vectors have width {module.width}, the teacher's {teacher.width}; set "
                f"{where}.head={teacher.width}, which adds a linear projection"
            )


def start_towers(
    towers: Sequence[Tower], device: torch.device, steps: Mapping[str, int], *, universal: bool = False
) -> Student:
    """The engines with their optimizers and schedules.

    Args:
        towers: from :func:`build_towers`.
        device: of this rank.
        steps: of the whole run, by strand.
        universal: a checkpoint in DeepSpeed's universal form will be loaded.
    """
    engines = [
        start_student(t.config, t.module, device, t.derived, max(1, steps[t.name]), universal=universal) for t in towers
    ]
    return engines[0] if len(engines) == 1 else TwoTowers(*engines)
