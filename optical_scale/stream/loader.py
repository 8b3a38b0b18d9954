"""Batches for one rank, with exact resume.

The loader walks the steps of a :class:`~optical_scale.stream.plan.StepPlan`. What a micro-batch contains depends only
on (step, number), so worker processes need no state: the parent hands them these two numbers in order and receives the
batches in the same order. The state counts the steps handed to the caller; what workers have prepared beyond that is
discarded on a restart and computed again.
"""

import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from optical_scale.batch import PairBatch
from optical_scale.errors import OpticalScaleError, ResumeError, StreamError
from optical_scale.records import Record
from optical_scale.runtime.world import World
from optical_scale.stream.cursor import StreamCursor, cursor_at
from optical_scale.stream.mixing import Mixture, Portion
from optical_scale.stream.order import SampleOrder
from optical_scale.stream.plan import StepPlan
from optical_scale.stream.source import Source, shard_sizes

Collate = Callable[[Sequence[Record], Sequence[int]], PairBatch]
Key = tuple[int, int]
_IGNORED = {signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2}


class MicroBatches(Dataset[PairBatch | OpticalScaleError]):
    """Micro-batches by (step, number); an error a user can cause comes back as a value, so its text stays whole."""

    def __init__(self, sources: Sequence[Source], plan: StepPlan, collate: Collate) -> None:
        self.sources = tuple(sources)
        self.plan = plan
        self.collate = collate

    def __getitem__(self, key: Key) -> PairBatch | OpticalScaleError:
        """Read and collate one micro-batch."""
        rows = self.plan.rows(*key)
        try:
            records = [self.sources[row.source][row.sample] for row in rows]
            return self.collate(records, [row.epoch for row in rows])
        except OpticalScaleError as error:
            return error


class StreamLoader:
    """The accumulation micro-batches of each optimizer step, for one rank.

    Args:
        sources: what to draw from; the same on every rank.
        collate: ``(records, epochs) -> PairBatch``, for example a :class:`~optical_scale.stream.collate.PairCollator`.
        world: this rank among all.
        pairs_per_step: pairs per optimizer step over all ranks.
        micro_batch_pairs: pairs per micro-batch of one rank.
        seed: data seed.
        temperature: languages are drawn with p ∝ n^(1/T).
        weights: relative weight per language, instead of a temperature.
        workers: processes that read ahead; 0 reads in this process. Does not influence the batches.

    Attributes:
        step: the next step, from 0.
        plan: the pure description of all steps.
        mixture: of the sources, for example for :meth:`Mixture.exposure`.
        accumulation: micro-batches in each step.

    Raises:
        StreamError: no or empty sources, or sizes that do not divide.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        collate: Collate,
        *,
        world: World,
        pairs_per_step: int,
        micro_batch_pairs: int,
        seed: int,
        temperature: float = 1.0,
        weights: Mapping[str, float] | None = None,
        workers: int = 0,
    ) -> None:
        if workers < 0:
            raise StreamError(f"workers is {workers}; it must be 0 (read in this process) or more")
        portions = [Portion(source.name, source.language, len(source)) for source in sources]
        self.mixture = Mixture(portions, temperature, weights)
        self._sizes = [shard_sizes(source) for source in sources]
        orders = [SampleOrder(p.name, sizes, seed) for p, sizes in zip(portions, self._sizes, strict=True)]
        self.plan = StepPlan(self.mixture, orders, seed, pairs_per_step, micro_batch_pairs)
        self.accumulation = self.plan.accumulation(world)
        self.step = 0
        self._world = world
        self._workers = workers
        self._dataset = MicroBatches(sources, self.plan, collate)
        self._ready: Iterator[PairBatch | OpticalScaleError] | None = None

    def take(self, step: int) -> list[PairBatch]:
        """The micro-batches of ``step``, which must be the next one.

        Raises:
            StreamError: ``step`` is not the next step, or the batch cannot be formed.
            ShardError: a sample cannot be read; the position stays before this step.
        """
        if step != self.step:
            raise StreamError(f"step {step} was asked for, but the stream stands before step {self.step}")
        if self._ready is None:
            self._ready = self._start()
        batches: list[PairBatch] = []
        try:
            for outcome in itertools.islice(self._ready, self.accumulation):
                if isinstance(outcome, OpticalScaleError):
                    raise outcome
                batches.append(outcome)
        except BaseException:
            self.close()  # the position inside the step is lost, so the next attempt starts the step again
            raise
        self.step += 1
        return batches

    def peek(self, step: int, number: int) -> PairBatch:
        """Micro-batch ``number`` of ``step`` over all ranks, read in this process; the position does not move.

        Raises:
            ShardError: a sample cannot be read.
        """
        batch = self._dataset[step, number]
        if isinstance(batch, OpticalScaleError):
            raise batch
        return batch

    def __iter__(self) -> Iterator[list[PairBatch]]:
        """Endless steps, from the present position."""
        while True:
            yield self.take(self.step)

    def state(self) -> dict[str, Any]:
        """What :meth:`restore` needs, as plain JSON values; the same on every rank."""
        return self._cursor(self.step).state()

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where :meth:`state` was taken, on any number of ranks and workers; reads no data.

        Raises:
            ResumeError: the sources, probabilities, seed or pairs per step changed, or the state is damaged.
        """
        saved = StreamCursor.from_state(state)
        if changes := saved.changes(self._cursor(saved.step)):
            raise ResumeError(
                "the checkpoint's data stream cannot be continued: " + "; ".join(changes) + ". Restore these "
                "settings, or start a new run from the checkpoint's weights"
            )
        self.close()
        self.step = saved.step

    def close(self) -> None:
        """Stop the worker processes; the next :meth:`take` starts them again."""
        self._ready = None

    def _cursor(self, step: int) -> StreamCursor:
        return cursor_at(step, self.mixture, self._sizes, self.plan.seed, self.plan.pairs_per_step)

    def _keys(self) -> Iterator[Key]:
        numbers = self.plan.numbers(self._world)
        return ((step, number) for step in itertools.count(self.step) for number in numbers)

    def _start(self) -> Iterator[PairBatch | OpticalScaleError]:
        if self._workers == 0:
            return (self._dataset[key] for key in self._keys())
        loader = DataLoader(
            self._dataset,
            batch_size=None,
            sampler=self._keys(),
            num_workers=self._workers,
            worker_init_fn=_begin_worker,
            # Without its own generator the DataLoader takes a number from the global one, and dropout after a
            # resume would differ from dropout in an uninterrupted run.
            generator=torch.Generator(),
        )
        # Workers inherit the mask, so a signal that arrives before they are set up waits instead of killing them.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, *_IGNORED})
        try:
            return iter(loader)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_worker(worker: int) -> None:
    """Leave signals to the trainer, which finishes its step and saves; only the parent may end a worker.

    Schedulers and terminals signal the whole process group. A worker that obeyed would fail the step being saved.
    Ignoring SIGTERM altogether is no answer: a parent that exits without closing the loader ends its children by it.
    """
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _IGNORED)
    threading.Thread(target=_exit_on_parents_request, args=(os.getppid(),), daemon=True).start()


def _exit_on_parents_request(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
