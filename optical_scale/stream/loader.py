"""Batches for one rank, with exact resume.

The loader walks the steps of one or several :class:`Strand`; all micro-batches of a step come from one strand, the same
on every rank, so that every rank runs the same networks. What a micro-batch contains depends only on (step, number), so
worker processes, or the thread that reads ahead without them, need no state: they are handed these two numbers in order
and give the batches in the same order. The state counts the steps handed to the caller; what was prepared beyond that
is discarded on a restart and computed again.
"""

import itertools
import os
import signal
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from optical_scale.batch import PairBatch
from optical_scale.errors import OpticalScaleError, ResumeError, StreamError
from optical_scale.records import Record
from optical_scale.runtime.world import World
from optical_scale.stream.ahead import Key, ReadAhead
from optical_scale.stream.strand import Strand, Strands

AHEAD = 256 << 20
"""Bytes of finished micro-batches that the thread may hold."""
_IGNORED = {signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2}


class MicroBatches(Dataset[PairBatch | OpticalScaleError]):
    """Micro-batches by (step, number); an error a user can cause comes back as a value, so its text stays whole."""

    def __init__(self, strands: Strands) -> None:
        self.strands = strands

    def __getitem__(self, key: Key) -> PairBatch | OpticalScaleError:
        """Read and collate one micro-batch."""
        strand, step = self.strands.of(key[0])
        try:
            rows = strand.plan.rows(step, key[1])
            reads = [partial(_read, strand, row.source, row.sample) for row in rows]
            return strand.reading(reads, [row.epoch for row in rows])
        except OpticalScaleError as error:
            return error


def _read(strand: Strand, source: int, sample: int) -> Record:
    return strand.sources[source][sample]


class StreamLoader:
    """The micro-batches of each optimizer step, for one rank.

    Args:
        strands: what to draw from, the same on every rank; several if the run has several modalities.
        world: this rank among all.
        shares: relative number of steps of each strand by name; None gives each the steps of its epoch.
        workers: processes that read ahead, two micro-batches each. Does not influence the batches.
        ahead: without workers, a thread of this process reads the next step while the caller computes this one, as long
            as what it holds is below so many bytes; 0 reads only when asked.

    Attributes:
        step: the next step, from 0.
        strands: as given, with the schedule of their steps.

    Raises:
        StreamError: no or equally named strands, or lanes that the ranks do not divide.
    """

    def __init__(
        self,
        strands: Sequence[Strand],
        *,
        world: World,
        shares: Mapping[str, float] | None = None,
        workers: int = 0,
        ahead: int = AHEAD,
    ) -> None:
        if workers < 0:
            raise StreamError(f"workers is {workers}; it must be 0 (read in this process) or more")
        self.strands = Strands(strands, shares)
        for strand in strands:
            strand.plan.check(world)
        self.step = 0
        self._world = world
        self._workers = workers
        self._ahead = ahead
        self._dataset = MicroBatches(self.strands)
        self._ready: Iterator[PairBatch | OpticalScaleError] | None = None
        self._counts: dict[int, int] = {}
        # Plans and shard folders serve one thread at a time.
        self._one_reader = threading.Lock()

    def numbers(self, step: int) -> range:
        """Which micro-batches of ``step`` this rank reads; equally many on every rank."""
        with self._one_reader:
            return _numbers(self.strands, self._world, step)

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
            while len(batches) < self._counts.get(step, 1):  # known once the first of them was asked for
                outcome = next(self._ready)
                if isinstance(outcome, OpticalScaleError):
                    raise outcome
                batches.append(outcome)
        except BaseException:
            self.close()  # the position inside the step is lost, so the next attempt starts the step again
            raise
        del self._counts[step]
        self.step += 1
        return batches

    def peek(self, step: int, number: int) -> PairBatch:
        """Micro-batch ``number`` of ``step`` over all ranks, read in this process; the position does not move.

        Raises:
            ShardError: a sample cannot be read.
        """
        with self._one_reader:
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
        with self._one_reader:
            return self.strands.state(self.step)

    def drawn(self) -> dict[str, int]:
        """Pairs handed out so far, by language, over all ranks."""
        with self._one_reader:
            return self.strands.drawn(self.step)

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where :meth:`state` was taken, on any number of ranks and workers; reads no data.

        Raises:
            ResumeError: the sources, probabilities, seed, bucketing or pairs per step changed, or the state is damaged.
        """
        with self._one_reader:
            step, changes = self.strands.compare(state)
        if changes:
            raise ResumeError(
                "the checkpoint's data stream cannot be continued: " + "; ".join(changes) + ". Restore these "
                "settings, or start a new run from the checkpoint's weights"
            )
        self.close()
        self.step = step

    def close(self) -> None:
        """Stop the thread or the worker processes; the next :meth:`take` starts them again."""
        if isinstance(self._ready, ReadAhead):
            self._ready.close()
        self._ready = None
        self._counts = {}

    def _start(self) -> Iterator[PairBatch | OpticalScaleError]:
        keys = _keys(self.strands, self._world, self.step, self._counts)
        if self._workers == 0 and self._ahead:
            ready = ReadAhead(self.step, keys, self._dataset.__getitem__, self._one_reader, self._ahead)
            weakref.finalize(self, ready.close)
            return ready
        if self._workers == 0:
            return map(self._dataset.__getitem__, keys)
        loader = DataLoader(
            self._dataset,
            batch_size=None,
            sampler=keys,
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


def _numbers(strands: Strands, world: World, step: int) -> range:
    strand, own = strands.of(step)
    return strand.plan.numbers(own, world)


def _keys(strands: Strands, world: World, first: int, counts: dict[int, int]) -> Iterator[Key]:
    """Micro-batches of this rank from step ``first`` on; before the first of a step, their number is in ``counts``."""
    for step in itertools.count(first):
        numbers = _numbers(strands, world, step)
        counts[step] = len(numbers)
        yield from ((step, number) for number in numbers)


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
