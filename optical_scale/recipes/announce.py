"""The arithmetic of a run, told before its first step: pairs, tokens and bytes."""

import logging
from collections.abc import Mapping

from optical_scale.config.run import TrainConfig
from optical_scale.engine.teacher import Teacher
from optical_scale.engine.towers import Student
from optical_scale.recipes.plan_memory import Memory, MemoryPlan, Shape
from optical_scale.runtime.world import World
from optical_scale.stream.loader import StreamLoader

logger = logging.getLogger(__name__)


def announce(
    config: TrainConfig,
    world: World,
    teacher: Teacher | None,
    student: Student,
    stream: StreamLoader,
    steps: Mapping[str, int],
) -> None:
    """Log what a step takes together, what a rank keeps, and how often each language is seen.

    Args:
        config: of the run.
        world: its processes.
        teacher: the engine, if there is one.
        student: the engines.
        stream: opened.
        steps: of the whole run, by strand.
    """
    for name, how in config.stream.strands().items():
        logger.info(
            "%d steps of %d pairs = %d processes x %d micro-batches x %d pairs%s",
            steps[name], how.pairs_per_step, world.size, how.lanes // world.size, how.pairs_per_step // how.lanes,
            " on average; a whole multiple of the micro-batches where the budget asks for it"
            if how.micro_batch_pairs is None else " with images" if name == "images" else "",
        )  # fmt: skip
    logger.info(
        "parameters kept by rank 0 between uses: student %s (ZeRO-%d)%s",
        f"{student.resident_parameters():,}",
        config.student.engine.zero_stage,
        f", teacher {teacher.resident_parameters():,} (ZeRO-{config.teacher.engine.zero_stage})"
        if teacher and config.teacher
        else "",
    )
    _tell_sizes(config, world)
    for strand in stream.strands.strands:
        for row in strand.plan.exposure(steps[strand.name]):
            logger.info(
                "  %-8s %9s %-6s  share %5.1f %%  %6.2f epochs",
                row.language, f"{row.pairs:,}", strand.name, 100 * row.probability, row.epochs,
            )  # fmt: skip


def _tell_sizes(config: TrainConfig, world: World) -> None:
    try:
        plan = MemoryPlan(config)
        memory = plan.memory(plan.layout(world.size))
    except Exception as error:  # networks of many kinds are computed here; a run does not need this
        logger.info("memory: not planned, since this network cannot be computed without values (%s)", error)
        return
    for shape, part in zip(plan.students.values(), config.towers().values(), strict=True):
        logger.info("%s", tokens_of(plan, shape, part, world.size))
    logger.info("memory of a rank, if all texts are that long: %s", memory_of(memory))


def tokens_of(plan: MemoryPlan, shape: Shape, part: TrainConfig, ranks: int) -> str:
    """The most tokens that one tower and its teacher read in a micro-batch, on a rank in a step, and in a step.

    Args:
        plan: of the run.
        shape: of the tower.
        part: what the tower would be as a run of its own.
        ranks: processes.
    """
    lanes = part.stream.lanes
    pairs = part.stream.pairs_per_step // lanes
    passages = pairs * (1 + part.stream.negatives)
    tokens = pairs * shape.tokens + passages * plan.teacher_tokens
    return (
        f"student {pairs} x {shape.tokens} + English {passages} x {plan.teacher_tokens} = at most {tokens:,} tokens "
        f"in a micro-batch, {tokens * lanes // ranks:,} on a rank and {tokens * lanes:,} in all in a step"
    )


def memory_of(memory: Memory) -> str:
    """Its parts in MiB, largest first."""
    parts = sorted(memory.parts().items(), key=lambda part: -part[1])
    told = ", ".join(f"{name if name != 'host' else 'offloaded to the host'} {_mib(size)}" for name, size in parts)
    return f"{_mib(memory.total)}: {told}"


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB" if size >= 2**20 else f"{size / 2**20:.2f} MiB"
