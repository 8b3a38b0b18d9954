"""Training configurations become the two engines of one rank."""

from typing import Any

import torch

from optical_scale.backbones.encoder import Encoder
from optical_scale.config.deepspeed import accumulation_steps, derive_student
from optical_scale.config.run import TrainConfig
from optical_scale.engine.student import StudentEngine
from optical_scale.engine.teacher import Teacher
from optical_scale.engine.teacher_cache import CachedTeacher
from optical_scale.recipes.build_models import (
    bitext_of,
    live_teacher,
    placement,
    readout_of_teacher,
    reads_passages,
    share_of_largest,
    student_encoder,
)
from optical_scale.recipes.build_stream import Prepare
from optical_scale.recipes.cache import fingerprint
from optical_scale.runtime.world import World
from optical_scale.training.schedule import learning_rate_factor


def accumulation(config: TrainConfig, world: World) -> int:
    """What DeepSpeed is told. Under a budget the number varies, and 2 stands for more than one.

    Raises:
        ConfigError: the batch does not divide by the processes.
    """
    if config.stream.micro_batch_pairs is None:
        return 2
    return accumulation_steps(config.stream.pairs_per_step, config.stream.micro_batch_pairs, world.size)


def student_engine_config(config: TrainConfig, world: World) -> dict[str, Any]:
    """DeepSpeed's dictionary for the student."""
    return derive_student(
        config.student.engine,
        micro_batch_pairs=config.stream.pairs_per_step // config.stream.lanes,
        accumulation=accumulation(config, world),
        largest_share=share_of_largest(config.student),
    )


def build_student(config: TrainConfig, derived: dict[str, Any]) -> tuple[Encoder, Prepare]:
    """The student's network, kept as the engine of ``derived`` will keep it, and what prepares its inputs."""
    place = placement(config.student.engine, derived)
    encoder, prepare = student_encoder(config.student, lambda: bitext_of(config.stream), place)
    if config.student.engine.packed:
        encoder.pack()
    if config.student_layers:
        encoder.expose(config.student_layers)
    return encoder, prepare


def build_teacher(config: TrainConfig, device: torch.device) -> tuple[Teacher | None, Prepare | None]:
    """The frozen teacher, itself or its stored states, and what reads its passages or images; None without one."""
    if config.teacher is None:
        return None, None
    prepare = reads_passages(config.teacher.backbone)
    if config.teacher.cache is not None:
        readout = readout_of_teacher(config.teacher)
        return CachedTeacher(config.teacher.cache.folder, fingerprint(config), device, readout), prepare
    return live_teacher(config, prepare, device), prepare


def start_student(
    config: TrainConfig, module: Encoder, device: torch.device, derived: dict[str, Any], steps: int, *, universal: bool
) -> StudentEngine:
    """The student's engine with its optimizer and schedule.

    Args:
        config: of the run.
        module: from :func:`build_student`.
        device: of this rank.
        derived: from :func:`student_engine_config`.
        steps: of the whole run.
        universal: a checkpoint in DeepSpeed's universal form will be loaded.
    """
    how = config.optimization
    return StudentEngine(
        module,
        derived | ({"checkpoint": {"load_universal": True}} if universal else {}),
        device,
        learning_rate=how.learning_rate,
        factor=learning_rate_factor(steps, how.warmup, how.decay),
        embedding_rate=how.embedding_rate,
        weight_decay=how.weight_decay,
        betas=how.betas,
        activation_checkpointing=config.student.engine.activation_checkpointing,
    )
