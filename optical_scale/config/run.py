"""The roots: one model per YAML file that a verb reads."""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from optical_scale.config.backbones import Backbone, Lora, TextBackbone, VisionBackbone
from optical_scale.config.engine import StudentEngine, TeacherEngine
from optical_scale.config.evaluations import BitextRetrieval, Evaluation, Groups
from optical_scale.config.metrics import SKIPPED, logged
from optical_scale.config.objectives import (
    Contrastive,
    MarginMSE,
    Objective,
    ScoreKL,
    layers_of,
    names,
    parts_of,
    weighs_by_idf,
)
from optical_scale.config.schedule import Alarms, Checkpoints, EvaluationTimes, Logging, Optimization
from optical_scale.config.schema import Schema
from optical_scale.config.stream import Stream


class TeacherCache(Schema):
    """Token states that `optical-scale cache` encoded beforehand; training then loads no teacher."""

    folder: Path
    """Where they are."""
    precision: Literal["float32", "bfloat16", "int8"] = "bfloat16"
    """How `optical-scale cache` stores a vector: 4, 2 or 1 bytes for each of its numbers."""
    layers: list[NonNegativeInt] = []
    """Inner layers to keep beside the output and those that the objective compares; each takes as much space as it."""


class Teacher(Schema):
    """The frozen encoder: of English, or of images, from which a student of captions in any languages learns."""

    backbone: Backbone
    """Where its weights are."""
    engine: TeacherEngine = TeacherEngine()
    """How it is sharded."""
    reads: Literal["passages", "queries"] = "passages"
    """What English texts are to it in training: `passage_prefix` is put before passages, `prefix` before queries."""
    cache: TeacherCache | None = None
    """null: the teacher encodes at every step."""

    @model_validator(mode="after")
    def _two_prefixes(self) -> "Teacher":
        _check_prefixes(self.backbone, self.reads == "queries", "reads: queries")
        return self

    @model_validator(mode="before")
    @classmethod
    def _of_texts_unless_told(cls, given: Any) -> Any:
        """Configurations from before teachers could read images name no kind."""
        if isinstance(given, dict) and isinstance(given.get("backbone"), dict):
            return given | {"backbone": {"kind": "text"} | given["backbone"]}
        return given

    @model_validator(mode="after")
    def _weights_to_cache(self) -> "Teacher":
        if self.cache is not None and self.backbone.pretrained is None:
            raise ValueError("`cache` remembers which weights it was made with; set `backbone.pretrained`")
        if self.cache is not None and isinstance(self.backbone, VisionBackbone):
            raise ValueError("`cache` stores states of texts; leave it out for a teacher of images")
        return self

    @model_validator(mode="after")
    def _images_are_equally_long(self) -> "Teacher":
        if self.engine.packed and isinstance(self.backbone, VisionBackbone):
            raise ValueError("`engine.packed` leaves out the padding of texts, and images have none; leave it out")
        return self


class Student(Schema):
    """The encoder that is trained."""

    backbone: Backbone
    """Where it starts."""
    reads: Literal["queries", "passages"] = "queries"
    """What texts of the other side are to it in training; passages: it learns to encode documents, behind
    `passage_prefix`."""
    lora: Lora | None = None
    """Train low-rank adapters and the head, and freeze the rest; export merges them. null trains all weights."""
    freeze: list[str] = []
    """Parts of the backbone that keep their values, for example [embeddings] or [embeddings, encoder.layer.0]."""
    vision: VisionBackbone | None = None
    """A second tower, for the images of `stream.images`; it shares nothing with the first but teacher and settings.
    `lora` and `freeze` are for the first."""
    engine: StudentEngine = StudentEngine()
    """How it is sharded."""

    @model_validator(mode="after")
    def _two_prefixes(self) -> "Student":
        _check_prefixes(self.backbone, self.reads == "passages", "reads: passages")
        return self

    @model_validator(mode="after")
    def _one_way(self) -> "Student":
        if self.lora is not None and self.freeze:
            raise ValueError("`lora` freezes the whole backbone already; leave `freeze` out")
        return self

    @model_validator(mode="after")
    def _images_are_equally_long(self) -> "Student":
        if self.engine.packed and isinstance(self.backbone, VisionBackbone):
            raise ValueError("`engine.packed` leaves out the padding of texts, and images have none; leave it out")
        return self

    @model_validator(mode="after")
    def _two_towers(self) -> "Student":
        if self.vision is not None and isinstance(self.backbone, VisionBackbone):
            raise ValueError(
                "`vision` is a second tower beside a text `backbone`; for images alone set `backbone` only"
            )
        if self.vision is not None and "nvme" in (self.engine.offload_optimizer, self.engine.offload_parameters):
            raise ValueError("two towers cannot share the files of nvme offload; use cpu, or train them in two runs")
        return self


def _check_prefixes(backbone: Backbone, other: bool, what: str) -> None:
    if other and (isinstance(backbone, VisionBackbone) or backbone.passage_prefix in (None, backbone.prefix)):
        raise ValueError(f"`{what}` changes nothing where queries and passages have one prefix; leave it out")


class TrainConfig(Schema):
    """`optical-scale train`: distil a teacher into a student, or train a student on pairs alone (`teacher: null`)."""

    run: Path
    """Run folder: checkpoints, metrics, resolved configuration."""
    seed: NonNegativeInt = 0
    """Fixes initial weights, sample order and dropout."""
    teacher: Teacher | None = None
    """null: the student encodes both sides of a pair (this is how a teacher is made)."""
    student: Student
    stream: Stream
    objective: Objective
    optimization: Optimization
    evaluation: list[Evaluation] = []
    """Measured inside training, on all ranks."""
    evaluation_times: EvaluationTimes = EvaluationTimes()
    checkpoints: Checkpoints = Checkpoints()
    logging: Logging = Logging()
    alarms: Alarms = Alarms()

    @model_validator(mode="after")
    def _selection_is_measured(self) -> "TrainConfig":
        if self.checkpoints.keep_best is not None and not self.evaluation:
            raise ValueError("checkpoints.keep_best needs a measurement; list one in `evaluation`")
        if self.checkpoints.patience is not None and not self.evaluation_times.every:
            raise ValueError("checkpoints.patience counts evaluations; set evaluation_times.every")
        return self

    @model_validator(mode="after")
    def _sides_fit(self) -> "TrainConfig":
        if self.teacher is None and isinstance(self.student.backbone, VisionBackbone):
            raise ValueError("a vision student reads only the image side of a pair; set `teacher` for the captions")
        if (self.student.vision is None) != (self.stream.images is None):
            raise ValueError("`student.vision` reads `stream.images`; set both or none")
        if self.student.vision is not None and self.teacher is None:
            raise ValueError("a vision tower reads only the image side of a pair; set `teacher` for the captions")
        if isinstance(self.student.backbone, VisionBackbone) and any(
            isinstance(item, BitextRetrieval) for item in self.evaluation
        ):
            raise ValueError("a vision student cannot be evaluated on bitext; use `name: image_text`")
        return self

    @property
    def teaches_images(self) -> bool:
        """Whether the teacher reads images, and the student their captions."""
        return self.teacher is not None and isinstance(self.teacher.backbone, VisionBackbone)

    @model_validator(mode="after")
    def _images_teach_captions(self) -> "TrainConfig":
        if not self.teaches_images:
            return self
        if isinstance(self.student.backbone, VisionBackbone) or self.student.vision is not None:
            raise ValueError("a teacher of images is for a student of captions: one text backbone, and no `vision`")
        if self.learns_from_regions:
            raise ValueError(
                "objective: region_alignment compares a teacher of texts with a student of images; here the teacher "
                "reads the images, so take this objective out"
            )
        if self.weighs_by_idf:
            raise ValueError("objective: `idf` weighs texts of both sides; a teacher of images has none")
        given = {"negatives": self.stream.negatives, "tokens": self.stream.tokens is not None}
        if found := [name for name, value in given.items() if value]:
            raise ValueError(f"stream.{found[0]} is for bitext; a teacher of images has none, leave it out")
        return self

    @model_validator(mode="after")
    def _negatives_are_used(self) -> "TrainConfig":
        parts = parts_of(self.objective)
        scored = [part.name for part in parts if isinstance(part, ScoreKL | MarginMSE)]
        if scored and (not self.stream.negatives or self.stream.images is not None):
            raise ValueError(
                f"{scored[0]} compares the negatives of queries; set stream.negatives, and no stream.images"
            )
        if not self.stream.negatives:
            return self
        if self.teacher is not None and self.teacher.reads == "queries":
            raise ValueError("stream.negatives are passages, beside those that answer; set teacher.reads to passages")
        if isinstance(self.student.backbone, VisionBackbone):
            raise ValueError("stream.negatives are texts beside text pairs; a vision student has none, set it to 0")
        if not any(isinstance(part, Contrastive | ScoreKL | MarginMSE) for part in parts):
            raise ValueError("stream.negatives: only contrastive, score_kl and margin_mse learn from them; set it to 0")
        if any(isinstance(part, Contrastive) and part.exchange == "turns" for part in parts):
            raise ValueError("stream.negatives: contrastive with exchange: turns has none; set exchange to gather")
        return self

    @model_validator(mode="after")
    def _alarms_know_their_metrics(self) -> "TrainConfig":
        known = logged(self.objective, towers=self.student.vision is not None)
        skips = any(part.faults.policy == "skip" for part in self.stream.strands().values())
        for number, limit in enumerate(self.alarms.limits):
            if limit.metric not in known and not (skips and limit.metric.startswith(SKIPPED)):
                close = difflib.get_close_matches(limit.metric, known, n=1)
                raise ValueError(
                    f"alarms.limits.{number}.metric: this run logs no {limit.metric!r}; "
                    f"{f'did you mean {close[0]!r}? ' if close else ''}expected one of {', '.join(known)}"
                )
        return self

    @property
    def needs_scores(self) -> bool:
        """Whether the objective learns from recorded scores."""
        return any(isinstance(part, ScoreKL | MarginMSE) for part in parts_of(self.objective))

    @model_validator(mode="after")
    def _regions_are_seen(self) -> "TrainConfig":
        if not self.learns_from_regions or isinstance(self.student.backbone, VisionBackbone):
            return self
        if self.student.vision is None:
            raise ValueError(
                "objective: region_alignment compares phrases with regions of an image, and a text student sees none; "
                "give the student a vision backbone, or take this objective out"
            )
        if names(self.objective) == {"region_alignment"}:
            raise ValueError(
                "objective: region_alignment alone teaches the text tower nothing; put it into a `mixture` beside an "
                "objective for the bitext"
            )
        return self

    @property
    def learns_from_regions(self) -> bool:
        """Whether the objective reads phrases with boxes."""
        return "region_alignment" in names(self.objective)

    @property
    def teacher_layers(self) -> list[int]:
        """Inner layers of the teacher that the objective compares; of the student where that encodes both sides."""
        return sorted({at.teacher for at in layers_of(self.objective) if at.teacher is not None})

    @property
    def cached_layers(self) -> list[int]:
        """Inner layers of the teacher that its cache is to hold."""
        cache = None if self.teacher is None else self.teacher.cache
        return [] if cache is None else sorted({*self.teacher_layers, *cache.layers})

    @property
    def student_layers(self) -> list[int]:
        """Inner layers that the student has to give."""
        own = {at.student for at in layers_of(self.objective) if at.student is not None}
        return sorted(own if self.teacher is not None else own | set(self.teacher_layers))

    @property
    def weighs_by_idf(self) -> bool:
        """Whether the objective reads inverse document frequencies."""
        return weighs_by_idf(self.objective)

    def towers(self) -> dict[str, "TrainConfig"]:
        """What each tower of the student would be as a run of its own, by the strand of the stream that it reads."""
        strands, vision = self.stream.strands(), self.student.vision
        if vision is None:
            return {"pairs": self}
        students = {
            "pairs": self.student.model_copy(update={"vision": None}),
            "images": Student(backbone=vision, engine=self.student.engine.model_copy(update={"packed": False})),
        }
        return {
            name: self.model_copy(update={"student": student, "stream": strands[name]})
            for name, student in students.items()
        }


class Stage(Schema):
    """A student to measure, for example before and after distillation."""

    name: str
    """Column heading."""
    student: TextBackbone
    """The exported folder."""


class EvaluateConfig(Schema):
    """`optical-scale evaluate`: measure exported students against a teacher and write the report."""

    output: Path
    """Folder of report.json and report.html."""
    title: str = "Retrieval report"
    teacher: TextBackbone
    """Encodes the English passages."""
    vision: VisionBackbone | None = None
    """Encodes the images; needed by image_text, grounding and entity_retrieval."""
    stages: Annotated[list[Stage], Field(min_length=1)]
    """In order; the first is the reference, the last is the result."""
    evaluation: Annotated[list[Evaluation], Field(min_length=1)]
    groups: Groups | None = None
    """For the gap; null leaves it out."""
    run: Path | None = None
    """Training run of the last stage, for the learning curve and the pairs seen per language."""
    epsilon: Annotated[float, Field(gt=0)] = 0.02
    """Entropic regularisation of the alignments shown in the report."""
    alignments: NonNegativeInt = 4
    """Pairs, and images, of each language that the report's alignment viewer offers; 0 leaves it out."""
    batch_size: PositiveInt = 64
    seed: NonNegativeInt = 0
    """Of the bootstrap."""


class TokenizerConfig(Schema):
    """`optical-scale tokenizer`: train a unigram tokenizer on the text of shards."""

    output: Path
    """Tokenizer folder."""
    shards: Annotated[list[Path], Field(min_length=1)]
    """Bitext or image folders written by `optical-scale convert`."""
    sides: list[Literal["source", "target"]] = ["source", "target"]
    """source (English), target, or both."""
    vocabulary: Annotated[int, Field(ge=64)] = 8000
    """Pieces, special tokens included."""
    temperature: Annotated[float, Field(ge=1.0)] = 1.0
    """Languages are sampled with p ∝ n^(1/T) so that small ones get pieces of their own."""
