"""What a report contains: the models behind ``report.json``, refusing anything they do not know.

``Report.model_validate(mapping)`` checks plain data, ``report.model_dump(mode="json")`` returns it.
"""

import math
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from optical_scale.evaluation.language_gap import Interval, LanguageGap, mean_interval
from optical_scale.evaluation.results import Direction, RetrievalResult, Score


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ReportedResult(_Model):
    """One language under one score in one direction; see :class:`~optical_scale.evaluation.results.RetrievalResult`."""

    evaluation: str
    language: str
    mode: Score
    direction: Direction
    metrics: dict[str, float]
    chance: dict[str, float]
    intervals: dict[str, Interval] = {}
    queries: int = Field(ge=1)
    documents: int = Field(ge=1)
    baselines: dict[str, dict[str, float]] = {}
    counted: dict[str, int] = {}

    @classmethod
    def of(cls, result: RetrievalResult) -> Self:
        """Means, chance levels and 95 % bootstrap intervals of a result; per-query values are left out."""
        return cls(
            evaluation=result.evaluation,
            language=result.language,
            mode=result.mode,
            direction=result.direction,
            metrics=dict(result.metrics),
            chance=dict(result.chance),
            intervals={name: mean_interval(values) for name, values in result.per_query.items()},
            queries=result.queries,
            documents=result.documents,
            baselines={name: dict(values) for name, values in result.baselines.items()},
            counted=dict(result.counted),
        )


class Stage(_Model):
    """All results at one point of a run, for example ``untrained`` or ``distilled``."""

    name: str
    results: tuple[ReportedResult, ...]


class ReportedGap(_Model):
    """The gap between language groups at one stage; formulas in :mod:`optical_scale.evaluation.language_gap`."""

    stage: str
    evaluation: str
    mode: Score
    direction: Direction
    metric: str
    high_mean: float
    low_mean: float
    gap: float
    relative_gap: float | None
    interval: Interval
    relative_interval: Interval | None
    confidence: float

    @classmethod
    def of(cls, gap: LanguageGap, stage: str, result: RetrievalResult, metric: str) -> Self:
        """A measured gap; ``result`` is any of the results it was computed from and names the task."""
        relative = not math.isnan(gap.relative_gap + sum(gap.relative_interval))
        return cls(
            stage=stage,
            evaluation=result.evaluation,
            mode=result.mode,
            direction=result.direction,
            metric=metric,
            high_mean=gap.high_mean,
            low_mean=gap.low_mean,
            gap=gap.gap,
            relative_gap=gap.relative_gap if relative else None,
            interval=gap.interval,
            relative_interval=gap.relative_interval if relative else None,
            confidence=gap.confidence,
        )


class Groups(_Model):
    """High-resource and low-resource languages."""

    high: tuple[str, ...]
    low: tuple[str, ...]


class CurvePoint(_Model):
    """A metric of one language during training."""

    step: int
    language: str
    metric: str
    value: float


class LossPoint(_Model):
    """The training loss at one step."""

    step: int
    value: float


class Alignment(_Model):
    """A transport plan between the tokens of a sentence and of its translation.

    Attributes:
        language: BCP-47 tag of the target side.
        source_tokens: N teacher tokens, as read by people.
        target_tokens: M student tokens.
        plan: N rows of M masses ≥ 0.
    """

    language: str
    source_tokens: tuple[str, ...]
    target_tokens: tuple[str, ...]
    plan: tuple[tuple[float, ...], ...]

    @model_validator(mode="after")
    def _shape(self) -> Self:
        rows, columns = len(self.source_tokens), len(self.target_tokens)
        if len(self.plan) != rows or any(len(row) != columns for row in self.plan):
            found = sorted({len(row) for row in self.plan})
            raise ValueError(
                f"the plan has {len(self.plan)} rows of {found} masses; expected {rows} rows (source tokens) "
                f"of {columns} (target tokens)"
            )
        return self


class PictureAlignment(_Model):
    """A transport plan between the tokens of a caption and the patches of its image.

    Attributes:
        language: BCP-47 tag of the caption.
        tokens: N caption tokens, as read by people.
        picture: the image, made small, as a ``data:`` address.
        rows: patches from top to bottom.
        columns: patches from left to right.
        plan: N rows of ``rows`` x ``columns`` masses ≥ 0, row by row from the top left.
    """

    language: str
    tokens: tuple[str, ...]
    picture: str = Field(pattern=r"^data:image/(jpeg|png);base64,[A-Za-z0-9+/=]+$")
    rows: int = Field(ge=1)
    columns: int = Field(ge=1)
    plan: tuple[tuple[float, ...], ...]

    @model_validator(mode="after")
    def _shape(self) -> Self:
        patches = self.rows * self.columns
        if len(self.plan) != len(self.tokens) or any(len(row) != patches for row in self.plan):
            found = sorted({len(row) for row in self.plan})
            raise ValueError(
                f"the plan has {len(self.plan)} rows of {found} masses; expected {len(self.tokens)} rows (tokens) "
                f"of {patches} (patches)"
            )
        return self


class Report(_Model):
    """Everything ``report.json`` holds and ``report.html`` shows.

    Attributes:
        schema_version: raised whenever a field changes its meaning.
        title: headline.
        config: the settings worth showing, by name.
        stages: in order of time; the first and last are compared.
        training_pairs: pairs seen in training by language; languages are shown in descending order of it.
        groups: high-resource and low-resource languages, when a gap was measured.
        gaps: one per stage, task and metric.
        learning_curve: metrics during training.
        loss_curve: loss during training.
        alignments: example plans between sentences, for the viewer.
        pictures: example plans between captions and images, for the viewer.
        timings: seconds by name of the phase.
    """

    schema_version: Literal[1] = 1
    title: str
    config: dict[str, str | int | float | bool | None] = {}
    stages: tuple[Stage, ...] = Field(min_length=1)
    training_pairs: dict[str, int] = {}
    groups: Groups | None = None
    gaps: tuple[ReportedGap, ...] = ()
    learning_curve: tuple[CurvePoint, ...] = ()
    loss_curve: tuple[LossPoint, ...] = ()
    alignments: tuple[Alignment, ...] = ()
    pictures: tuple[PictureAlignment, ...] = ()
    timings: dict[str, float] = {}


Task = tuple[str, Direction, Score]
"""Evaluation, direction and score: what one table or chart is about."""


def tasks(report: Report) -> list[Task]:
    """The distinct tasks of all stages, in order of appearance."""
    found = ((r.evaluation, r.direction, r.mode) for stage in report.stages for r in stage.results)
    return list(dict.fromkeys(found))


def whole_tasks(report: Report) -> list[Task]:
    """The tasks that are no part of another one."""
    return [task for task in tasks(report) if ":" not in task[0]]


def parts_of(report: Report, task: Task) -> list[Task]:
    """The tasks over parts of its queries, such as one entity type."""
    return [part for part in tasks(report) if part[0].startswith(f"{task[0]}:") and part[1:] == task[1:]]


def headline_metric(metrics: list[str]) -> str:
    """The metric that stands for a task: MRR, or the first where nothing is ranked."""
    return "MRR" if "MRR" in metrics else metrics[0]


def results_of(stage: Stage, task: Task) -> dict[str, ReportedResult]:
    """Results of a task by language."""
    return {r.language: r for r in stage.results if (r.evaluation, r.direction, r.mode) == task}


def languages_of(report: Report, task: Task) -> list[str]:
    """Languages of a task, those with most training pairs first, then by tag."""
    found = {language for stage in report.stages for language in results_of(stage, task)}
    return sorted(found, key=lambda language: (-report.training_pairs.get(language, 0), language))


def metrics_of(report: Report, task: Task) -> list[str]:
    """Names of the metrics of a task, in order of appearance."""
    found = (name for stage in report.stages for r in results_of(stage, task).values() for name in r.metrics)
    return list(dict.fromkeys(found))


def group_mean(results: dict[str, ReportedResult], languages: tuple[str, ...], metric: str) -> float | None:
    """Unweighted mean over the languages of a group; None when one of them was not evaluated."""
    values = [results[l].metrics.get(metric) for l in languages if l in results]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(languages) else None


def task_title(task: Task) -> str:
    """A heading for people."""
    return title_of(task)


def title_of(task: tuple[str, str, str]) -> str:
    """The same for names read from a file."""
    evaluation, direction, mode = task
    whole, _, part = evaluation.partition(":")
    name = {
        "bitext": "Bitext retrieval",
        "image_text": "Image-text retrieval",
        "grounding": "Phrase grounding",
        "entity_retrieval": "Entity retrieval",
    }.get(whole, whole)
    name += f" of {part}" if part else ""
    way = {
        "text_to_text": "foreign → English",
        "text_to_image": "text → image",
        "image_to_text": "image → text",
        "phrase_to_region": "phrase → region",
        "phrase_to_image": "phrase → image",
    }.get(direction, direction.replace("_", " "))
    return f"{name}, {way}, {mode.replace('_', ' ')}"
