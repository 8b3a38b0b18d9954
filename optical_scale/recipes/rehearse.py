"""The first optimizer steps of a training, measured part by part; no checkpoint and no run folder are written."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from optical_scale.config.run import TrainConfig
from optical_scale.engine.start import finish, start
from optical_scale.recipes.build_engines import build_teacher, prepare_disks
from optical_scale.recipes.build_inputs import teachers_side
from optical_scale.recipes.build_objective import objective
from optical_scale.recipes.build_stream import Needs, loader
from optical_scale.recipes.build_towers import build_towers, check_widths, start_towers
from optical_scale.runtime.phases import Phase, Phases
from optical_scale.runtime.world import World
from optical_scale.training.step import StepResult, TrainStep


class Rehearsal(NamedTuple):
    """What the steps gave and cost on this rank.

    Attributes:
        phases: seconds and peak memory of every part; those of a step are of the last one.
        results: loss, metrics and update of every step.
        parameters: elements of the student, trained or not.
        trained: elements that the optimizer changes.
    """

    phases: Mapping[str, Phase]
    results: list[StepResult]
    parameters: int
    trained: int


def rehearse(config: TrainConfig, steps: int = 1) -> Rehearsal:
    """Run the first ``steps`` steps of ``config`` from its first weights, in this process as one rank of many."""
    world = World.from_env()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    device = start(world, seed=config.seed)
    prepare_disks(config, world, device)
    phases = Phases(device, memory=True)
    with phases("process alone"):
        pass  # what Python, torch and the process group hold before any model
    with phases("build student"):
        towers = build_towers(config, world)
    with phases("build teacher"):
        teacher, _ = build_teacher(config, device)
        check_widths(teacher, {tower.name: tower.module for tower in towers})
    with phases("start student engine"):
        student = start_towers(towers, device, {tower.name: steps for tower in towers})
    parameters = [parameter for tower in towers for parameter in tower.module.parameters()]
    sizes = [(getattr(p, "ds_numel", p.numel()), p.requires_grad) for p in parameters]
    costs = phases.close()
    results = []
    with tempfile.TemporaryDirectory() as lengths:
        stream = loader(
            config.stream,
            teachers_side(config),
            {tower.name: tower.reads for tower in towers},
            world=world,
            seed=config.seed,
            lengths=Path(lengths),
            device=device,
            needs=Needs.of(config),
        )
        step = TrainStep(teacher, student, objective(config.objective), phases)
        for micro_batches, _ in zip(stream, range(steps), strict=False):
            phases.close()
            results.append(step(micro_batches))
        stream.close()
    costs |= phases.close()
    student.close()
    finish()
    return Rehearsal(costs, results, sum(size for size, _ in sizes), sum(size for size, trained in sizes if trained))
