"""Continuing a run: whether its shards fit, and on other processes or another ZeRO stage their rewriting."""

import logging
from pathlib import Path

from optical_scale.config.compatibility import check_resumable
from optical_scale.config.loading import load
from optical_scale.config.run import TrainConfig
from optical_scale.engine.universal import write_universal
from optical_scale.errors import CheckpointError
from optical_scale.runtime.collectives import broadcast_object
from optical_scale.runtime.world import World
from optical_scale.training.checkpoint import ranks_of

logger = logging.getLogger(__name__)


def reshape(checkpoint: Path | None, config: TrainConfig, world: World) -> Path | None:
    """The checkpoint's shards rewritten for this run, or None where they fit as they are; all ranks enter together.

    Raises:
        CheckpointError: on every rank, when the shards do not fit and cannot be rewritten, were offloaded to files, or
            are of another run.
    """
    answer: tuple[Path | None, str | None] = (None, None)
    if checkpoint is not None and world.is_main:
        try:
            answer = (_reshaped(checkpoint, config, world.size), None)
        except CheckpointError as error:
            answer = (None, str(error))
    reshaped: Path | None
    reshaped, problem = broadcast_object(answer)
    if problem is not None:
        raise CheckpointError(problem)
    return reshaped


def _offloads(config: TrainConfig) -> tuple[str, str]:
    return config.student.engine.offload_optimizer, config.student.engine.offload_parameters


def _reshaped(checkpoint: Path, config: TrainConfig, size: int) -> Path | None:
    saved, ranks = load(TrainConfig, checkpoint / "config.yaml"), ranks_of(checkpoint)
    check_resumable(saved.model_dump(mode="json"), config.model_dump(mode="json"), str(checkpoint))
    then, now = _offloads(saved), _offloads(config)
    if then != now and "nvme" in (*then, *now):
        raise CheckpointError(
            f"{checkpoint} was written with student.engine.offload_optimizer: {then[0]} and offload_parameters: "
            f"{then[1]}, this run has {now[0]} and {now[1]}; a run cannot change to `nvme` or from it. Restore both"
        )
    before, stage = saved.student.engine.zero_stage, config.student.engine.zero_stage
    if (ranks, before) == (size, stage):
        return None
    if before == stage == 0 and config.student.engine.precision == "fp32":
        return None  # every rank has all of it
    what = f"{checkpoint} was written by {_many(ranks)} at ZeRO stage {before}, this run has {_many(size)} at {stage}"
    back = f"Start the run with {_many(ranks)} at stage {before}"
    if "nvme" in now:
        raise CheckpointError(f"{what}; with `nvme` its shards cannot be rewritten. {back}")
    if 0 in (before, stage):
        raise CheckpointError(f"{what}; shards of stage 0 cannot be rewritten. {back}")
    logger.info("%s; rewriting its shards", what)
    output = config.run / f"reshaped_{checkpoint.name}"
    write_universal(checkpoint, output, before=before, stage=stage)
    return output


def _many(ranks: int) -> str:
    return f"{ranks} process{'es' if ranks > 1 else ''}"
