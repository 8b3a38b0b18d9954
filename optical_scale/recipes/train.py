"""Training, as one story: models, data, objective, loop."""

import logging
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import torch

from optical_scale.backbones.flops import Flops
from optical_scale.backbones.tokenizers import TextTokenizer
from optical_scale.backbones.vision import ImageTransform
from optical_scale.batch import PatchBatch, TokenBatch
from optical_scale.config.compatibility import check_resumable
from optical_scale.config.deepspeed import check_batches
from optical_scale.config.loading import dump, load
from optical_scale.config.run import TrainConfig
from optical_scale.engine.peers import naming_lost_peers
from optical_scale.engine.start import finish, start
from optical_scale.engine.teacher import Teacher, TeacherEngine
from optical_scale.engine.teacher_cache import CachedTeacher
from optical_scale.engine.towers import VISION, Student
from optical_scale.errors import ResumeError
from optical_scale.recipes.announce import announce
from optical_scale.recipes.build_engines import build_teacher, prepare_disks
from optical_scale.recipes.build_evaluations import Encoders, check_boxes, measure
from optical_scale.recipes.build_inputs import Prepare, teachers_side
from optical_scale.recipes.build_models import contract_of
from optical_scale.recipes.build_objective import objective
from optical_scale.recipes.build_stream import Needs, loader
from optical_scale.recipes.build_towers import Tower, build_towers, check_widths, start_towers
from optical_scale.recipes.cache import check_cached
from optical_scale.recipes.reshape import reshape
from optical_scale.recipes.steps import total_steps
from optical_scale.runtime import log
from optical_scale.runtime.collectives import broadcast_object
from optical_scale.runtime.devices import peak_flops
from optical_scale.runtime.files import lock_file, write_atomic, write_json
from optical_scale.runtime.stopping import StopRequests
from optical_scale.runtime.world import World
from optical_scale.stream.loader import StreamLoader
from optical_scale.training.alarms import Alarms, Limit
from optical_scale.training.checkpoint import CheckpointStore
from optical_scale.training.hooks import Console, Hook, Metrics
from optical_scale.training.meter import Meter, Work
from optical_scale.training.reference import TEXTS, write_reference
from optical_scale.training.selection import Selection
from optical_scale.training.state import FINISHED
from optical_scale.training.step import TrainStep
from optical_scale.training.trackers import Tracked, check_installed, mlflow, tensorboard, wandb
from optical_scale.training.trainer import Times, Trainer

logger = logging.getLogger(__name__)

LOCK = "lock"


def train(config: TrainConfig, requests: StopRequests) -> bool:
    """Run or continue ``config``, this process being one rank of many; False if ``requests`` stopped it midway."""
    world = World.from_env()
    check_batches(config, world.size)
    check_installed(config.logging.trackers)
    # Forked loader workers and threaded tokenizers do not mix; each rank tokenises in its own process.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    device = start(world, seed=config.seed)
    prepare_disks(config, world, device)
    claimed = _claim(config, world)

    towers = build_towers(config, world)
    teacher, prepare = build_teacher(config, device)
    _check_fit(config, teacher, prepare, towers, device)
    stream = loader(
        config.stream,
        teachers_side(config),
        {tower.name: tower.reads for tower in towers},
        world=world,
        seed=config.seed,
        lengths=config.run / "lengths",
        device=device,
        needs=Needs.of(config),
    )
    steps = total_steps(config, stream.strands)
    by_strand = dict(zip((tower.name for tower in towers), stream.strands.counts(steps), strict=True))
    store = _store(config, world)
    reshaped = reshape(store.latest(), config, world)
    student = start_towers(towers, device, by_strand, universal=reshaped is not None)
    if world.is_main:
        announce(config, world, teacher, student, stream, by_strand)

    trainer = Trainer(
        step=TrainStep(teacher, student, objective(config.objective)),
        student=student,
        loader=stream,
        store=store,
        assets=lambda: _assets(config, towers, student, stream),
        evaluate=_evaluator(config, teacher, prepare, student, towers, world),
        hooks=_hooks(config, world, steps),
        times=_times(config, steps),
        world=world,
        requests=requests,
        reshaped=reshaped,
        most_skipped=config.stream.faults.most,
        selection=_selection(config),
        alarms=_alarms(config),
        meter=Meter(device, _work(config, teacher, prepare, towers, device)),
        most_non_finite=config.optimization.most_non_finite,
    )
    with naming_lost_peers():
        state = trainer.fit()
    if claimed is not None:
        if reshaped is not None:
            shutil.rmtree(reshaped)
        if trainer.finished:
            write_json(config.run / FINISHED, state.to_json())
        claimed.close()
    finish()
    return trainer.finished


def _check_fit(
    config: TrainConfig,
    teacher: Teacher | None,
    prepare: Prepare | None,
    towers: Sequence[Tower],
    device: torch.device,
) -> None:
    check_widths(teacher, {tower.name: tower.module for tower in towers})
    for reader in (prepare, *(tower.prepare for tower in towers)):
        if isinstance(reader, ImageTransform):
            check_boxes(config.evaluation, reader)
    if isinstance(teacher, CachedTeacher) and config.stream.faults.policy == "error":
        check_cached(config, teacher, device)


def _work(
    config: TrainConfig,
    teacher: Teacher | None,
    prepare: Prepare | None,
    towers: Sequence[Tower],
    device: torch.device,
) -> Work:
    """What the networks compute, of which the log says how much of the device's best that is."""
    peak = config.logging.peak_teraflops and config.logging.peak_teraflops * 1e12
    if peak is None and device.type == "cuda" and config.student.engine.precision != "fp32":
        peak = peak_flops(torch.cuda.get_device_name(device))
    students = [Flops.of(tower.module, _patches(tower.prepare)) for tower in towers]
    return Work(
        teacher=Flops.of(teacher.module, _patches(prepare)) if isinstance(teacher, TeacherEngine) else None,
        texts=next((student for student in students if not student.patches), None),
        images=next((student for student in students if student.patches), None),
        both_sides=teacher is None,
        peak=peak,
    )


def _patches(prepare: Prepare | None) -> int:
    return prepare.max_tokens if isinstance(prepare, ImageTransform) else 0


def _claim(config: TrainConfig, world: World) -> IO[str] | None:
    """Write the resolved configuration into the run folder, or make sure that the run found there may continue.

    Returns:
        On rank 0 the file that keeps other runs out; close it at the end.

    Raises:
        ResumeError: on every rank, when the folder belongs to something else or another run is in it.
    """
    lock = None
    problem: str | None = None
    if world.is_main:
        path = config.run / "config.yaml"
        try:
            if path.exists() and _has_begun(config.run):
                saved = load(TrainConfig, path)
                check_resumable(saved.model_dump(mode="json"), config.model_dump(mode="json"))
            elif (
                not path.exists() and config.run.exists() and any(found.name != LOCK for found in config.run.iterdir())
            ):
                raise ResumeError(
                    f"run: {config.run} is not empty and has no config.yaml, so it is no run folder; choose another one"
                )
            lock = lock_file(config.run / LOCK)
            write_atomic(path, dump(config))
            (config.run / FINISHED).unlink(missing_ok=True)
        except ResumeError as error:
            problem = str(error)
        except BlockingIOError:
            problem = (
                f"run: another process trains in {config.run} and holds its file {LOCK}; wait until it has ended, or "
                "choose another folder"
            )
    problem = broadcast_object(problem)
    if problem is not None:
        raise ResumeError(problem)
    return lock


def _has_begun(run: Path) -> bool:
    """Whether there is anything to continue; what failed before its first result may start with other settings."""
    metrics = run / "metrics.jsonl"
    return any(run.glob("checkpoints/step_*")) or (metrics.exists() and metrics.stat().st_size > 0)


def _evaluator(
    config: TrainConfig,
    teacher: Teacher | None,
    teachers: Prepare | None,
    student: Student,
    towers: Sequence[Tower],
    world: World,
) -> Callable[[], list[dict[str, Any]]]:
    """Evaluation on all ranks with the engines themselves; the frozen teacher reads each collection once."""

    def by_student(items: Any) -> Any:
        return student.encode(towers[0].prepare(items))

    def by_second(items: Any) -> Any:
        return student.encode(towers[1].prepare(items))

    def by_teacher(items: Any) -> Any:
        assert teacher is not None
        assert teachers is not None
        return teacher.encode(teachers(items))

    prepare = towers[0].prepare
    if isinstance(prepare, ImageTransform):
        assert isinstance(teachers, TextTokenizer), "the schema demands one for the captions"
        encoders = Encoders(by_teacher, by_teacher, images=by_student, query_spans=teachers.spans)
    elif not isinstance(teachers, TextTokenizer):  # no teacher, or one of images: English is read by the student
        passages = prepare.for_passages()
        encoders = Encoders(
            by_student,
            lambda texts: student.encode(passages(texts)),
            images=by_teacher if teachers else None,
            passage_cache=None,
            matrices_cache=None,
            query_spans=prepare.spans,
        )
    else:
        images = by_second if len(towers) > 1 else None
        encoders = Encoders(by_student, by_teacher, images=images, query_spans=prepare.spans)

    def evaluate() -> list[dict[str, Any]]:
        with torch.no_grad():
            results = measure(config.evaluation, encoders, batch_size=config.evaluation_times.batch_size, world=world)
        return [
            {
                "evaluation": result.evaluation,
                "language": result.language,
                "mode": result.mode,
                "direction": result.direction,
                "metrics": dict(result.metrics),
            }
            for result in results
        ]

    return evaluate


def _store(config: TrainConfig, world: World) -> CheckpointStore:
    how = config.checkpoints
    return CheckpointStore(config.run / "checkpoints", world, how.keep, asynchronous=how.asynchronous)


def _times(config: TrainConfig, steps: int) -> Times:
    return Times(
        steps=steps,
        log_every=config.logging.every,
        evaluate_every=config.evaluation_times.every,
        checkpoint_every=config.checkpoints.every or 0,
        checkpoint_at_start=config.checkpoints.at_start,
    )


def _alarms(config: TrainConfig) -> Alarms:
    return Alarms([Limit(**limit.model_dump()) for limit in config.alarms.limits], config.alarms.after)


def _selection(config: TrainConfig) -> Selection | None:
    how = config.checkpoints
    return None if how.keep_best is None else Selection(how.keep_best, how.patience)


def _hooks(config: TrainConfig, world: World, steps: int) -> list[Hook]:
    if not world.is_main:
        return []
    name, shown = config.logging.name or config.run.resolve().name, config.model_dump(mode="json")
    to = config.run, config.logging.project, name, shown
    known = {"tensorboard": lambda: tensorboard(config.run), "wandb": lambda: wandb(*to), "mlflow": lambda: mlflow(*to)}
    trackers = [Tracked(tracker, known[tracker]()) for tracker in config.logging.trackers]
    return [Console(steps), Metrics(log.MetricsFile(config.run / "metrics.jsonl")), *trackers]


def _reference(tower: Tower, stream: StreamLoader) -> TokenBatch | PatchBatch:
    """Fixed inputs: the same texts in every run, or the images of the stream's first micro-batch, on every rank."""
    if isinstance(tower.prepare, TextTokenizer):
        return tower.prepare(TEXTS)
    return stream.peek(stream.strands.first(tower.name), 0).target


def _assets(
    config: TrainConfig, towers: Sequence[Tower], student: Student, stream: StreamLoader
) -> Callable[[Path], None]:
    """Encode the references on all ranks; what rank 0 then writes beside the shards makes the checkpoint exportable."""
    references = [_reference(tower, stream) for tower in towers]
    student.train(False)
    with torch.no_grad():
        states = [student.encode(reference) for reference in references]
    student.train(True)

    def write(folder: Path) -> None:
        write_atomic(folder / "config.yaml", dump(config))
        for tower, reference, encoded, below in zip(towers, references, states, ("", VISION), strict=False):
            assets = folder / below / "assets"
            assets.mkdir(parents=True)
            tower.prepare.save(assets)
            tower.module.backbone.config.save_pretrained(assets)  # type: ignore[union-attr, operator]
            contract_of(tower.module, tower.prepare).write(assets)
            write_reference(folder / below / "reference.safetensors", reference, encoded)

    return write
