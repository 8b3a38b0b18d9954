"""The cells of a study: every combination of its axes' values, checked before the first one runs."""

import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optical_scale.config.backbones import TextBackbone, VisionBackbone
from optical_scale.config.compatibility import check_resumable
from optical_scale.config.evaluations import Groups
from optical_scale.config.loading import dump, load
from optical_scale.config.run import EvaluateConfig, Stage, TrainConfig
from optical_scale.config.study import Study
from optical_scale.errors import ConfigError, ResumeError
from optical_scale.runtime.files import write_atomic

STAGE = "student"


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of the grid.

    Attributes:
        name: of its folder, made of the labels.
        labels: the value of every axis.
        folder: where everything of the cell lies.
        train: the checked training configuration.
        evaluate: the checked evaluation configuration.
    """

    name: str
    labels: Mapping[str, str]
    folder: Path
    train: TrainConfig
    evaluate: EvaluateConfig

    @property
    def model(self) -> Path:
        """The exported folder."""
        return self.folder / "model"

    @property
    def identity(self) -> str:
        """Hash of everything that decides the results; where the cell lies does not."""
        train = self.train.model_dump(mode="json", exclude={"run", "logging"})
        for idle in ("every", "keep", "at_start"):
            del train["checkpoints"][idle]
        evaluate = self.evaluate.model_dump(mode="json", exclude={"output", "run", "stages", "title", "vision"})
        decisive = [train, evaluate]
        if isinstance(self.train.student.backbone, VisionBackbone):
            decisive.append(self.evaluate.stages[0].student.model_dump(mode="json"))
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def grid(study: Study) -> list[Cell]:
    """All cells, in the order of the axes with the last one varying fastest.

    Raises:
        ConfigError: a cell's configuration breaks a rule, two cells have one name, or a folder holds another run;
            every problem at once, each with the cells it concerns.
    """
    values = [_values(name, axis) for name, axis in study.axes.items()]
    cells: list[Cell] = []
    names: list[str] = []
    problems: dict[str, list[str]] = {}
    for combination in itertools.product(*values):
        name = "-".join(word for word, _, _ in combination)
        names.append(name)
        fields: dict[str, Any] = dict(study.overrides)
        for _, _, own in combination:
            fields |= own
        labels = {axis: label for axis, (_, label, _) in zip(study.axes, combination, strict=True)}
        try:
            cells.append(_cell(study, name, labels, fields))
        except (ConfigError, ResumeError) as error:
            for line in str(error).split("\n") if isinstance(error, ConfigError) else [str(error)]:
                problems.setdefault(line, []).append(name)
    for name, count in Counter(names).items():
        if count > 1:
            problems.setdefault(f"{count} cells have this name; rename values of the axes", []).append(name)
    if problems:
        lines = [f"{_some(concerned)}: {line}" for line, concerned in problems.items()]
        raise ConfigError("no cell was started:\n" + "\n".join(lines))
    return cells


def _values(name: str, axis: Mapping[Any, Any] | list[Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Word in the cell's name, label and dotted fields of every value of an axis."""
    if isinstance(axis, Mapping):
        return [(_word(str(label)), str(label), dict(fields)) for label, fields in axis.items()]
    last = name.rsplit(".", 1)[-1]
    return [(_word(f"{last}{value}"), str(value), {name: value}) for value in axis]


def _word(text: str) -> str:
    """A label as a part of a folder's name."""
    return re.sub(r"[^\w.+]+", "_", text) or "_"


def _some(names: list[str]) -> str:
    shown = ", ".join(dict.fromkeys(names[:3]))
    return f"cell {shown}" if len(names) == 1 else f"cells {shown}" + (f" and {len(names) - 3} more" * (len(names) > 3))


def _cell(study: Study, name: str, labels: Mapping[str, str], fields: Mapping[str, Any]) -> Cell:
    folder = study.output / "cells" / name
    changes = [f"{key}={json.dumps(value)}" for key, value in fields.items()]
    train = load(TrainConfig, study.base, [*changes, f"run={json.dumps(str(folder / 'run'))}"])
    cell = Cell(name, labels, folder, train, _evaluation(study, folder, train))
    saved = folder / "train.yaml"
    if saved.exists():
        before = load(TrainConfig, saved).model_dump(mode="json")
        try:
            check_resumable(before, train.model_dump(mode="json"))
        except ResumeError as error:
            raise ResumeError(f"{folder}: {error}") from error
    return cell


def _evaluation(study: Study, folder: Path, train: TrainConfig) -> EvaluateConfig:
    """How the exported student of a cell is measured.

    Raises:
        ConfigError: neither the study nor the training configuration says what to measure.
    """
    exported, student = folder / "model", train.student.backbone
    teacher = train.teacher.backbone if train.teacher else None
    if isinstance(student, TextBackbone):
        told = student.model_dump(include={"max_tokens", "prefix", "passage_prefix", "mask_punctuation"})
        own = TextBackbone(pretrained=exported, **told)
        stage, vision = own, None
        if isinstance(teacher, VisionBackbone):  # English is read by the student, images by the teacher
            vision, teacher = teacher, None
    else:
        assert isinstance(teacher, TextBackbone), "the schema demands one for a vision student"
        stage, vision = teacher, VisionBackbone(kind="vision", pretrained=exported)
    fixed: dict[str, Any] = {
        "output": folder / "report",
        "run": folder / "run",
        "stages": [Stage(name=STAGE, student=stage)],
    }
    if vision is not None:
        fixed["vision"] = vision
    if isinstance(study.groups, Groups):
        fixed["groups"] = study.groups
    if study.evaluate is not None:
        # The schema of the file asks for the fields that are replaced, so the file may leave them as they are.
        given = load(EvaluateConfig, study.evaluate)
        if isinstance(student, VisionBackbone):
            fixed["stages"] = [Stage(name=STAGE, student=given.stages[-1].student)]
        return given.model_copy(update=fixed)
    if not train.evaluation:
        raise ConfigError("evaluation: the training configuration lists none; add one there, or set `evaluate`")
    return EvaluateConfig(
        title=folder.name,
        teacher=teacher or stage,
        evaluation=train.evaluation,
        batch_size=train.evaluation_times.batch_size,
        **fixed,
    )


def write_configs(cell: Cell) -> None:
    """The two files that the verbs of the cell read."""
    write_atomic(cell.folder / "train.yaml", dump(cell.train))
    write_atomic(cell.folder / "evaluate.yaml", dump(cell.evaluate))
