"""One function over many inputs in several processes, results in order."""

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Generic, TypeVar

from optical_scale.errors import WorkerError

Input = TypeVar("Input")
Result = TypeVar("Result")

_AHEAD = 3
"""Inputs under way for each process: one at work, one waiting, one result on its way back."""

_make: Callable[[], Callable[[Any], Any]]
_work: Callable[[Any], Any] | None = None


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_in_order(
    make: Callable[[], Callable[[Input], Result]], inputs: Iterable[Input], processes: int
) -> Iterator[Result]:
    """Yield ``make()(input)`` for each of ``inputs``, in their order.

    At most three inputs a process are taken from ``inputs`` ahead of what was yielded. Closing the iterator, or an
    exception at either side, ends the processes; so does the end of this one, however it comes.

    Args:
        make: called once in each process; picklable.
        inputs: picklable, as are the results and the errors that the function raises.
        processes: worker processes; 1 works in this process.

    Raises:
        WorkerError: a worker process ended.
    """
    if processes == 1:
        yield from map(make(), inputs)
        return
    pool = ProcessPoolExecutor(processes, get_context("spawn"), _begin, (make, os.getpid()))
    waiting: deque[Future[Result]] = deque()
    try:
        for given in inputs:
            waiting.append(pool.submit(_do, given))
            if len(waiting) >= _AHEAD * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise WorkerError(
            f"one of {processes} worker processes ended without a result; it was killed, perhaps because memory ran out"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


class Aside(Generic[Result]):
    """One call in a process of its own, beside what this one does; leaving the block ends it, finished or not.

    Args:
        function: what to call; picklable, as are its arguments, its result and its errors.
        arguments: its arguments.
        named: its keyword arguments.
    """

    def __init__(self, function: Callable[..., Result], *arguments: Any, **named: Any) -> None:
        context = get_context("spawn")
        self._answer, answer = context.Pipe(duplex=False)
        self._process = context.Process(
            target=_aside, args=(answer, os.getpid(), partial(function, *arguments, **named)), daemon=True
        )
        self._process.start()
        answer.close()

    def __enter__(self) -> "Aside[Result]":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.join()
        self._answer.close()

    def result(self) -> Result:
        """What the call returned, once it has; call this once.

        Raises:
            WorkerError: its process ended without a result.
            Exception: whatever the function raised.
        """
        try:
            result, error = self._answer.recv()
        except EOFError:
            raise WorkerError(
                "a process ended without a result; it was killed, perhaps because memory ran out"
            ) from None
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]


def _aside(answer: Connection, parent: int, call: Callable[[], Any]) -> None:
    _follow(parent)
    try:
        answer.send((call(), None))
    except Exception as error:
        answer.send((None, error))


def _begin(make: Callable[[], Callable[[Any], Any]], parent: int) -> None:
    global _make
    _follow(parent)
    _make = make


def _follow(parent: int) -> None:
    """Leave Ctrl-C, which the terminal sends to all processes, to the parent; end when it is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _do(given: Any) -> Any:
    global _work
    if _work is None:  # not in _begin, whose errors the pool would not tell
        _work = _make()
    return _work(given)
