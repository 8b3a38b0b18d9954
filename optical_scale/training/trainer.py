"""The loop."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from optical_scale.batch import PairBatch
from optical_scale.engine.student import StudentEngine
from optical_scale.runtime.files import write_json
from optical_scale.runtime.world import World
from optical_scale.training.checkpoint import CheckpointStore
from optical_scale.training.hooks import Hook
from optical_scale.training.preemption import Preemption
from optical_scale.training.state import TrainState
from optical_scale.training.step import TrainStep

logger = logging.getLogger(__name__)


class Loader(Protocol):
    """What the trainer needs of the stream."""

    def __iter__(self) -> Iterator[list[PairBatch]]:
        """The micro-batches of one optimizer step after another, on this rank."""
        ...

    def state(self) -> dict[str, Any]:
        """Position after the last step handed out."""
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
    """

    def __init__(
        self,
        *,
        step: TrainStep,
        student: StudentEngine,
        loader: Loader,
        store: CheckpointStore,
        assets: Callable[[], Callable[[Path], None]],
        evaluate: Callable[[], list[dict[str, Any]]],
        hooks: Sequence[Hook],
        times: Times,
        world: World,
    ) -> None:
        self.step = step
        self.student = student
        self.loader = loader
        self.store = store
        self.assets = assets
        self.evaluate = evaluate
        self.hooks = hooks if world.is_main else ()
        self.times = times
        self.state = TrainState()
        self._window = _Window()

    def fit(self) -> TrainState:
        """Train until the last step or an agreed stop; the returned state says which."""
        self._restore()
        with Preemption(self.student.device) as preemption:
            if self.state.step == 0:
                self._measure()
                if self.times.checkpoint_at_start:
                    self._save()
            batches = iter(self.loader)
            while self.state.step < self.times.steps:
                self._advance(next(batches))
                stop = preemption.agreed()
                last = self.state.step == self.times.steps
                if not stop and (last or _due(self.state.step, self.times.evaluate_every)):
                    self._measure()
                if stop or last or _due(self.state.step, self.times.checkpoint_every):
                    self._save()
                if stop:
                    logger.info("stopped on request after step %d; the same command continues", self.state.step)
                    break
        self.loader.close()
        return self.state

    def _advance(self, micro_batches: list[PairBatch]) -> None:
        result = self.step(micro_batches)
        self.state = self.state.after_step(Counter(name for batch in micro_batches for name in batch.languages))
        self._window.add(sum(len(batch) for batch in micro_batches), result.values["loss"])
        last = self.state.step == self.times.steps
        if last or _due(self.state.step, self.times.log_every):
            loss, pairs_per_second = self._window.close()
            self.state = self.state.with_loss(loss)
            values = {
                **result.values,
                "loss": loss,
                "gradient_norm": result.update.gradient_norm,
                "learning_rate": result.update.learning_rate,
                "pairs_per_second_per_rank": pairs_per_second,
            }
            for hook in self.hooks:
                hook.stepped(self.state, values)

    def _measure(self) -> None:
        self.student.train(False)
        results = self.evaluate()
        self.student.train(True)
        self.state = self.state.with_results([{"step": self.state.step, **result} for result in results])
        for hook in self.hooks:
            hook.evaluated(self.state, results)
        self._window.restart()

    def _save(self) -> None:
        write_assets = self.assets()

        def write_rest(folder: Path) -> None:
            write_json(folder / "train_state.json", self.state.to_json())
            write_json(folder / "stream.json", self.loader.state())
            write_assets(folder)

        path = self.store.save(self.state.step, self.student.save, write_rest)
        logger.info("checkpoint %s", path)
        self._window.restart()

    def _restore(self) -> None:
        import json

        checkpoint = self.store.latest()
        if checkpoint is None:
            return
        self.student.load(checkpoint)
        self.state = TrainState.from_json(json.loads((checkpoint / "train_state.json").read_text(encoding="utf-8")))
        self.loader.restore(json.loads((checkpoint / "stream.json").read_text(encoding="utf-8")))
        self.store.restore_random_state(checkpoint)
        logger.info("continuing after step %d from %s", self.state.step, checkpoint)


class _Window:
    """Mean loss and speed since the last log line."""

    def __init__(self) -> None:
        self.restart()
        self._losses: list[float] = []

    def restart(self) -> None:
        self._started = time.perf_counter()
        self._pairs = 0

    def add(self, pairs: int, loss: float) -> None:
        self._pairs += pairs
        self._losses.append(loss)

    def close(self) -> tuple[float, float]:
        loss = sum(self._losses) / len(self._losses)
        speed = self._pairs / max(1e-9, time.perf_counter() - self._started)
        self._losses = []
        self.restart()
        return loss, speed


def _due(step: int, every: int) -> bool:
    return bool(every) and step % every == 0
