"""The loop."""

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from optical_scale.batch import PairBatch
from optical_scale.engine.towers import Student
from optical_scale.errors import EngineError, StreamError
from optical_scale.runtime import log
from optical_scale.runtime.collectives import any_rank, broadcast_object
from optical_scale.runtime.files import write_json
from optical_scale.runtime.stopping import StopRequests
from optical_scale.runtime.world import World
from optical_scale.training.alarms import Alarms
from optical_scale.training.checkpoint import CheckpointStore
from optical_scale.training.faults import take_together
from optical_scale.training.hooks import Hook
from optical_scale.training.meter import Meter, speed_of
from optical_scale.training.selection import Selection
from optical_scale.training.state import TrainState
from optical_scale.training.step import StepResult, TrainStep

logger = logging.getLogger(__name__)


class Loader(Protocol):
    """What the trainer needs of the stream."""

    def __iter__(self) -> Iterator[list[PairBatch]]:
        """The micro-batches of one optimizer step after another, on this rank."""
        ...

    def state(self) -> dict[str, Any]:
        """Position after the last step handed out."""
        ...

    def drawn(self) -> dict[str, int]:
        """Pairs handed out to all ranks so far, by language."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Go to a position."""
        ...

    def close(self) -> None:
        """Stop worker processes."""
        ...


@dataclass(frozen=True, slots=True)
class Times:
    """How long a run is and when it reports, measures and saves, in optimizer updates; 0 means only at the end."""

    steps: int
    log_every: int
    evaluate_every: int = 0
    checkpoint_every: int = 0
    checkpoint_at_start: bool = False


class Trainer:
    """Owns the order of events; engines, loader and objective arrive ready.

    Args:
        step: runs one optimizer update.
        student: saved and restored.
        loader: training stream of this rank.
        store: where checkpoints go.
        assets: collective on all ranks; returns what rank 0 calls with a checkpoint folder to write everything that is
            neither a shard nor the trainer's own state.
        evaluate: collective on all ranks, returns the same results everywhere.
        hooks: observers, called on rank 0.
        times: see :class:`Times`.
        world: this process among all.
        requests: to this process, to stop; the ranks agree on them after every step and evaluation.
        reshaped: the newest checkpoint's shards, rewritten for this run; None loads them as they are.
        most_skipped: samples that the whole run may skip over all ranks; one more stops it.
        selection: which checkpoint is kept as the best one, and when to stop early; None does neither.
        alarms: look at every logged step.
        meter: counts what a step does; None counts without knowing the networks.
        most_non_finite: updates that may be left out because a loss or gradient is not finite; the next one stops.
    """

    def __init__(
        self,
        *,
        step: TrainStep,
        student: Student,
        loader: Loader,
        store: CheckpointStore,
        assets: Callable[[], Callable[[Path], None]],
        evaluate: Callable[[], list[dict[str, Any]]],
        hooks: Sequence[Hook],
        times: Times,
        world: World,
        requests: StopRequests,
        reshaped: Path | None = None,
        most_skipped: int = 0,
        selection: Selection | None = None,
        alarms: Alarms | None = None,
        meter: Meter | None = None,
        most_non_finite: int = 0,
    ) -> None:
        self.step = step
        self.student = student
        self.loader = loader
        self.store = store
        self.assets = assets
        self.evaluate = evaluate
        self.hooks = hooks if world.is_main else ()
        self.times = times
        self.requests = requests
        self.reshaped = reshaped
        self.most_skipped = most_skipped
        self.selection = selection
        self.alarms = alarms or Alarms()
        self.most_non_finite = most_non_finite
        self.state = TrainState()
        self.finished = False
        self._speed = ""
        self.meter = meter or Meter()

    def fit(self) -> TrainState:
        """Train until the last step or an agreed stop; :attr:`finished` says which."""
        resumed = self._restore()
        stop = self._asked()
        if not (resumed or stop):
            self._measure()
            if self.times.checkpoint_at_start:
                self._save()
            stop = self._asked()
        if not stop:
            stop = self._train()
        if stop:
            logger.info("stopped on request after step %d; the same command continues", self.state.step)
        self.loader.close()
        self.store.wait()
        self.finished = self._over()
        for hook in self.hooks:
            hook.ended(self.finished)
        return self.state

    def _train(self) -> bool:
        """Take the steps that are left; True if all ranks stop before the last one, with a checkpoint."""
        batches = iter(self.loader)
        stop = False
        with log.bar("train", self.times.steps, "step", self.state.step) as advance:
            while not (stop or self._over()):
                self._advance(self._next(batches))
                advance(1, f"loss {self.state.last_loss:.4g}{self._speed}")
                stop = self._asked()
                last = self.state.step == self.times.steps
                improved = False
                # The last evaluation is part of the result; a run that stops before does not wait for another one.
                if last or (not stop and _due(self.state.step, self.times.evaluate_every)):
                    improved = self._measure()
                    stop = self._asked()
                if stop or improved or self._over() or _due(self.state.step, self.times.checkpoint_every):
                    self._save()
        return stop and not self._over()

    def _asked(self) -> bool:
        """Whether any rank was asked to stop, agreed on all of them."""
        return any_rank(self.requests.asked, self.student.device)

    def _over(self) -> bool:
        """After the last step, or when the selection has lost patience."""
        return self.state.step >= self.times.steps or (
            self.selection is not None and self.selection.exhausted(self.state)
        )

    def _next(self, batches: Iterator[list[PairBatch]]) -> list[PairBatch]:
        started = time.perf_counter()
        micro_batches, skipped = take_together(lambda: next(batches), self.student.device)
        self.meter.wait(time.perf_counter() - started)
        if skipped:
            self.state = self.state.after_skipping(skipped)
            total = sum(self.state.skipped.values())
            if total > self.most_skipped:
                found = ", ".join(f"{reason} {count:,}" for reason, count in sorted(self.state.skipped.items()))
                raise StreamError(
                    f"{total:,} samples could not be used ({found}), more than the {self.most_skipped:,} that "
                    "stream.faults.most allows; run `optical-scale verify` on the shards, or raise the limit"
                )
        return micro_batches

    def _advance(self, micro_batches: list[PairBatch]) -> None:
        number = self.state.step + 1
        logged = number == self.times.steps or _due(number, self.times.log_every)
        result = self.step(micro_batches, self.state.step, watch=logged)
        self.state = self._counted(result)
        self.meter.add(micro_batches, result.values["loss"])
        if logged:
            unlogged = bool(self.state.unlogged)
            self.state = self.state.logged()
            values = {
                **result.values,
                "loss": self.state.losses[-1][1] if unlogged else result.values["loss"],
                "gradient_norm": result.update.gradient_norm,
                "learning_rate": result.update.learning_rate,
                **self.meter.close(self.times.steps - self.state.step, self.step.phases.close()),
                **({"non_finite": float(self.state.non_finite)} if self.state.non_finite else {}),
                **{f"skipped_{reason.replace(' ', '_')}": float(count) for reason, count in self.state.skipped.items()},
            }
            for hook in self.hooks:
                hook.stepped(self.state, values)
            self._speed = "".join(f", {word}" for word in speed_of(values))
            self.alarms.check(self.state.step, values)

    def _counted(self, result: StepResult) -> TrainState:
        """The state after a step; one that changed nothing, because of a number that is not finite, is counted.

        Raises:
            EngineError: on all ranks, that was one too many.
        """
        if result.problem is None:
            return self.state.after_step(result.values["loss"])
        state = self.state.after_non_finite()
        if state.non_finite > self.most_non_finite:
            raise EngineError(
                f"step {state.step}: {result.problem}; the weights were not updated. "
                + (f"That is update number {state.non_finite} left out. " if self.most_non_finite else "")
                + "Lower the learning rate, use bf16 in place of fp16, or let some be left out by "
                "optimization.most_non_finite"
            )
        logger.warning("step %d left out, the weights stay: %s", state.step, result.problem)
        return state

    def _measure(self) -> bool:
        """Evaluate on all ranks; whether this is the best result so far, agreed on all of them."""
        self.student.train(False)
        results = self.evaluate()
        self.student.train(True)
        self.state = self.state.with_results([{"step": self.state.step, **result} for result in results])
        for hook in self.hooks:
            hook.evaluated(self.state, results)
        improved = self._select(results)
        self.meter.restart()
        return improved

    def _select(self, results: list[dict[str, Any]]) -> bool:
        if self.selection is None:
            return False
        # Computed before the first step too, so that a misspelt metric is known at once.
        value = broadcast_object(self.selection.value(results))
        if self.state.step == 0:
            return False
        self.state = self.selection.after(self.state, value)
        best = self.state.best
        if best is not None and best.since:
            logger.info(
                "%s %.4f; the best is %.4f after step %d, %d evaluations ago%s",
                self.selection.metric, value, best.value, best.step, best.since,
                ": stopping early" if self.selection.exhausted(self.state) else "",
            )  # fmt: skip
        return best is not None and best.step == self.state.step

    def _save(self) -> None:
        write_assets = self.assets()
        self.state = self.state.with_pairs(self.loader.drawn())

        def write_rest(folder: Path) -> None:
            write_json(folder / "train_state.json", self.state.to_json())
            write_json(folder / "stream.json", self.loader.state())
            write_assets(folder)

        best = self.state.best if self.selection is not None else None
        path = self.store.save(self.state.step, self.student.save, write_rest, best.step if best else None)
        logger.info("checkpoint %s%s", path, " appears when it is on the disk" if self.store.asynchronous else "")
        self.meter.restart()

    def _restore(self) -> bool:
        """Continue from the newest checkpoint; False if there is none."""
        checkpoint = self.store.latest()
        if checkpoint is None:
            return False
        self.student.load(self.reshaped or checkpoint)
        self.state = TrainState.from_json(json.loads((checkpoint / "train_state.json").read_text(encoding="utf-8")))
        self.loader.restore(json.loads((checkpoint / "stream.json").read_text(encoding="utf-8")))
        self.store.restore_random_state(checkpoint)
        logger.info("continuing after step %d from %s", self.state.step, checkpoint)
        return True


def _due(step: int, every: int) -> bool:
    return bool(every) and step % every == 0
