"""Training configurations become the two engines of one rank."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from optical_scale.backbones.encoder import Encoder, check_layers
from optical_scale.config.deepspeed import accumulation, derive_student
from optical_scale.config.run import TrainConfig
from optical_scale.engine.disk import require_space
from optical_scale.engine.ops import require_file_op
from optical_scale.engine.student import StudentEngine
from optical_scale.engine.teacher import Teacher
from optical_scale.engine.teacher_cache import CachedTeacher
from optical_scale.recipes.build_inputs import Prepare, depth_of_teacher, readout_of_teacher, reads_passages
from optical_scale.recipes.build_models import (
    bitext_of,
    empty_encoder,
    empty_student,
    live_teacher,
    placement,
    share_of_largest,
    student_encoder,
)
from optical_scale.recipes.cache import fingerprint
from optical_scale.runtime.collectives import agree_on_errors
from optical_scale.runtime.world import World
from optical_scale.training.schedule import learning_rate_factor


def student_engine_config(config: TrainConfig, world: World) -> dict[str, Any]:
    """DeepSpeed's dictionary for the student."""
    return derive_student(
        config.student.engine,
        micro_batch_pairs=config.stream.pairs_per_step // config.stream.lanes,
        accumulation=accumulation(config, world.size),
        largest_share=share_of_largest(config.student),
    )


def build_student(config: TrainConfig, derived: dict[str, Any]) -> tuple[Encoder, Prepare]:
    """The student's network, kept as the engine of ``derived`` will keep it, and what prepares its inputs."""
    place = placement(config.student.engine, derived)
    encoder, prepare = student_encoder(config.student, lambda: bitext_of(config.stream), place)
    if config.student.engine.packed:
        encoder.pack()
    if config.student_layers:
        both = ", which reads both sides" if config.teacher is None else ""
        encoder.expose(config.student_layers, f"the student's {config.student.backbone.kind} backbone{both}")
    return encoder, prepare


def prepare_disks(config: TrainConfig, world: World, device: torch.device) -> None:
    """Where something is offloaded to `nvme`, see that it fits and compile what that needs; all ranks enter together.

    Raises:
        EngineError: on every rank, when on some machine a tool, libaio, the folder or its space is missing.
    """
    disks: dict[Path, dict[str, int]] = {}
    for side, disk, size in _on_disk(config):
        disks.setdefault(disk, {})[side] = size * world.local_size // world.size
    if not disks:
        return
    with agree_on_errors("preparing to offload to `nvme`", device):
        if world.local_rank == 0:
            for disk, needed in disks.items():
                require_space(disk, needed)
        require_file_op()


def _on_disk(config: TrainConfig) -> Iterator[tuple[str, Path, int]]:
    """Which side has how many bytes in which folder, over all ranks."""
    size = {"fp32": 4, "bf16": 2, "fp16": 2}
    student, teacher = config.student.engine, config.teacher
    if student.nvme is not None and "nvme" in (student.offload_optimizer, student.offload_parameters):
        weights = list(empty_student(config.student).parameters())
        bytes_ = size[student.precision] * (student.offload_parameters == "nvme") * sum(p.numel() for p in weights)
        if student.offload_optimizer == "nvme":  # master weights, two moments, gradient
            bytes_ += 16 * sum(p.numel() for p in weights if p.requires_grad)
        yield "student", student.nvme, bytes_
    if teacher is not None and teacher.engine.nvme is not None and teacher.engine.offload_parameters == "nvme":
        frozen = sum(p.numel() for p in empty_encoder(teacher.backbone).parameters())
        yield "teacher", teacher.engine.nvme, size[teacher.engine.precision] * frozen


def build_teacher(config: TrainConfig, device: torch.device) -> tuple[Teacher | None, Prepare | None]:
    """The frozen teacher, itself or its stored states, and what reads its passages or images; None without one."""
    if config.teacher is None:
        return None, None
    prepare = reads_passages(config.teacher.backbone)
    if config.teacher.cache is not None:
        # Before the cache is looked into, whose words would be to write it anew with a layer that no network has.
        check_layers(config.teacher_layers, depth_of_teacher(config.teacher), "the teacher")
        readout = readout_of_teacher(config.teacher)
        found = fingerprint(config)
        return CachedTeacher(config.teacher.cache.folder, found, device, readout, config.teacher_layers), prepare
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
