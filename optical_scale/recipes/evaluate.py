"""Evaluation, as one story: encoders, measurements, gap, alignments, report."""

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from optical_scale.backbones.encoder import Encoder, model_inputs, token_states
from optical_scale.backbones.tokenizers import TextTokenizer
from optical_scale.backbones.vision import ImageTransform
from optical_scale.batch import TokenStates
from optical_scale.config.loading import load
from optical_scale.config.run import EvaluateConfig, TrainConfig
from optical_scale.errors import EvaluationError
from optical_scale.evaluation.collection_retrieval import MatricesCache
from optical_scale.evaluation.language_gap import LanguageGroups, language_gap
from optical_scale.evaluation.report import write_report
from optical_scale.evaluation.results import RetrievalResult
from optical_scale.evaluation.schema import (
    CurvePoint,
    Groups,
    LossPoint,
    Report,
    ReportedGap,
    ReportedResult,
    Stage,
)
from optical_scale.evaluation.values import write_values
from optical_scale.export.source import choose_checkpoint
from optical_scale.recipes.alignments import picture_alignments, sentence_alignments
from optical_scale.recipes.build_evaluations import Encoders, check_boxes, measure
from optical_scale.recipes.build_inputs import text_tokenizer
from optical_scale.recipes.build_models import text_encoder, vision_encoder
from optical_scale.runtime.world import World
from optical_scale.training.state import FINISHED, TrainState

logger = logging.getLogger(__name__)

Encode = Callable[[Any], TokenStates]
_GAP_METRIC = {
    "bitext": "MRR",
    "image_text": "R@1",
    "collection": "nDCG@10",
    "grounding": "pointing",
    "entity_retrieval": "R@1",
}


def evaluate(config: EvaluateConfig) -> Report:
    """Measure every stage and write the report; returns it.

    Raises:
        EvaluationError: the output folder exists already, or a collection is unusable.
    """
    if config.output.exists() and any(config.output.iterdir()):
        raise EvaluationError(f"output: {config.output} is not empty; choose another folder or delete it")
    torch.manual_seed(config.seed)
    teacher_tokens = text_tokenizer(config.teacher).for_passages()
    teacher = frozen(text_encoder(config.teacher, teacher_tokens), teacher_tokens)
    seeing, transform = vision_encoder(config.vision) if config.vision else (None, None)
    images = frozen(seeing, transform) if seeing and transform else None
    if transform:
        check_boxes(config.evaluation, transform)
    passages: dict[Any, Any] = {}
    matrices: MatricesCache = {}

    stages: list[Stage] = []
    gaps: list[ReportedGap] = []
    timings: dict[str, float] = {}
    measured: dict[str, Sequence[RetrievalResult]] = {}
    for stage in config.stages:
        logger.info("evaluating %s", stage.name)
        began = time.perf_counter()
        student_tokens = text_tokenizer(stage.student)
        student = frozen(text_encoder(stage.student, student_tokens), student_tokens)
        encoders = Encoders(student, teacher, images, passages, matrices, student_tokens.spans)
        results = measure(config.evaluation, encoders, batch_size=config.batch_size, world=World())
        stages.append(Stage(name=stage.name, results=tuple(ReportedResult.of(result) for result in results)))
        gaps += _gaps(config, stage.name, results)
        measured[stage.name] = results
        timings[f"evaluating {stage.name}"] = round(time.perf_counter() - began, 1)

    curve, losses, pairs, settings = _history(config.run)
    report = Report(
        title=config.title,
        config=settings,
        stages=tuple(stages),
        training_pairs=pairs,
        groups=Groups(high=tuple(config.groups.high), low=tuple(config.groups.low)) if config.groups else None,
        gaps=tuple(gaps),
        learning_curve=curve,
        loss_curve=losses,
        alignments=tuple(sentence_alignments(config, teacher, teacher_tokens, student, student_tokens)),
        pictures=tuple(picture_alignments(config, student, student_tokens, images, transform)),
        timings=timings,
    )
    write_values(config.output, measured)
    write_report(config.output, report)
    return report


def frozen(encoder: Encoder, prepare: TextTokenizer | ImageTransform) -> Encode:
    """Encode with a plain module on the GPU if there is one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    module = encoder.eval().to(device)

    @torch.no_grad()
    def encode(items: Any) -> TokenStates:
        batch = prepare(items).to(device)
        return token_states(module(**model_inputs(batch)), batch, encoder.readout)

    return encode


def _gaps(config: EvaluateConfig, stage: str, results: Sequence[RetrievalResult]) -> Iterator[ReportedGap]:
    """One gap per task that measured every language of both groups."""
    if config.groups is None:
        return
    groups = LanguageGroups(tuple(config.groups.high), tuple(config.groups.low))

    def task(result: RetrievalResult) -> tuple[str, str, str]:
        return result.evaluation, result.mode, result.direction

    for (evaluation, *_), members in groupby(sorted(results, key=task), task):
        rows = list(members)
        metric = _GAP_METRIC[evaluation.partition(":")[0]]
        values = {row.language: row.per_query[metric] for row in rows}
        if set(groups.high + groups.low) <= set(values):
            yield ReportedGap.of(language_gap(values, groups, seed=config.seed), stage, rows[0], metric)


def _history(run: Path | None) -> tuple[tuple[CurvePoint, ...], tuple[LossPoint, ...], dict[str, int], dict[str, Any]]:
    """Learning curve, loss curve, pairs per language and settings of a training run."""
    if run is None:
        return (), (), {}, {}
    # A finished run may have lost its checkpoints to save space.
    folder, name = (run, FINISHED) if (run / FINISHED).exists() else (choose_checkpoint(run), "train_state.json")
    state = TrainState.from_json(json.loads((folder / name).read_text(encoding="utf-8")))
    config = load(TrainConfig, folder / "config.yaml")
    curve = tuple(
        CurvePoint(
            step=result["step"],
            language=result["language"],
            metric=f"MRR ({result['mode']})",
            value=result["metrics"]["MRR"],
        )
        for result in state.results
        if result["evaluation"] == "bitext"
    )
    settings = {
        "objective": config.objective.name,
        "steps": state.step,
        "pairs per step": config.stream.pairs_per_step,
        "learning rate": config.optimization.learning_rate,
        "language temperature": config.stream.temperature,
        "student ZeRO stage": config.student.engine.zero_stage,
        "teacher ZeRO stage": config.teacher.engine.zero_stage if config.teacher else None,
        "precision": config.student.engine.precision,
        "seed": config.seed,
    }
    return curve, tuple(LossPoint(step=step, value=value) for step, value in state.losses), dict(state.pairs), settings
