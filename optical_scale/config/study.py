"""What `optical-scale study` is told: a grid of runs and how they are compared."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, model_validator

from optical_scale.config.evaluations import Groups
from optical_scale.config.schema import DOTTED, Schema

Label = str | int | float | bool
Axis = dict[Label, dict[str, Any]] | list[Label]


class CountGroups(Schema):
    """Groups by real training counts."""

    threshold: PositiveInt
    """Languages with at least this many pairs seen in training are high-resource, all others low-resource."""


class Study(Schema):
    """`optical-scale study`: train and evaluate every cell of a grid, and report on all of them together."""

    output: Path
    """Folder of the study: `cells/NAME` for every cell, and the report."""
    title: str = "Study"
    base: Path
    """Training configuration (TrainConfig) that every cell starts from; its `run` is replaced."""
    overrides: Annotated[dict[str, Any], DOTTED] = {}
    """Dotted fields of the training configuration that all cells share, such as {optimization.steps: 100}."""
    axes: Annotated[dict[str, Axis], Field(min_length=1)]
    """By name. A mapping gives every value a label and its dotted fields; a list is short for one field that is called
    like the axis, for example `seed: [0, 1, 2]`."""
    replicates: str = "seed"
    """The axis over which means and standard deviations are taken."""
    scale: str = "size"
    """The axis that changes the number of parameters, for the gap against scale."""
    corpora: str | None = None
    """The axis whose values are different corpora. They stand side by side in a first table of means over languages,
    and are not compared with one another: tests, fronts and figures are of one corpus each."""
    evaluate: Path | None = None
    """Evaluation configuration (EvaluateConfig), whose `output`, `stages` and `run` are replaced; null measures what
    the training configuration's `evaluation` lists. For vision students its last stage reads the captions; with null
    the teacher does, which knows English only."""
    groups: Groups | CountGroups | None = None
    """For the gap; null takes those of `evaluate`, or leaves it out."""
    metric: str = "MRR"
    """The metric of gaps, tests and figures; tables hold all metrics."""
    baselines: list[dict[str, Label]] = []
    """What cells are tested against: labels of some axes, such as {objective: mse}; the other axes are kept equal."""
    jobs: PositiveInt = 1
    """Cells that run side by side on this machine, which share its cores (or take OMP_NUM_THREADS threads a process)
    and GPUs; with Slurm, array tasks at once."""
    processes: PositiveInt | None = None
    """Training processes of one cell; null takes one per GPU of the cell, or one on a CPU."""
    keep: Literal["all", "models", "results"] = "all"
    """What stays of a finished cell. models: without checkpoints. results: without checkpoints and exported model."""

    @model_validator(mode="after")
    def _axes_are_known(self) -> "Study":
        for name, axis in self.axes.items():
            if not axis:
                raise ValueError(f"axis {name!r} has no value; give it one or remove it")
        for field, name in (("replicates", self.replicates), ("scale", self.scale)):
            if field in self.model_fields_set and name not in self.axes:
                raise ValueError(f"`{field}` is {name!r}, which is no axis; expected one of {', '.join(self.axes)}")
        others = [name for name in self.axes if name not in (self.replicates, self.scale)]
        if self.corpora is not None and self.corpora not in others:
            expected = ", ".join(others) or "(there is none)"
            raise ValueError(
                f"`corpora` is {self.corpora!r}; expected an axis besides replicates and scale: {expected}"
            )
        for baseline in self.baselines:
            self._check_baseline(baseline)
        return self

    def _check_baseline(self, baseline: dict[str, Label]) -> None:
        if not baseline:
            raise ValueError("a baseline names no axis; expected for example {objective: mse}")
        for name, label in baseline.items():
            if name not in self.axes:
                raise ValueError(f"baseline {baseline}: {name!r} is no axis; expected one of {', '.join(self.axes)}")
            known = [str(value) for value in self.axes[name]]
            if str(label) not in known:
                expected = ", ".join(known)
                raise ValueError(f"baseline {baseline}: axis {name!r} has no {label!r}; expected one of {expected}")
            if name == self.replicates:
                raise ValueError(f"baseline {baseline}: {name!r} is averaged over; name another axis")
