"""One function over many inputs in several processes, results in order."""

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, TypeVar

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


def _begin(make: Callable[[], Callable[[Any], Any]], parent: int) -> None:
    """Leave Ctrl-C, which the terminal sends to all processes, to the parent; end when it is gone."""
    global _make
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _make = make


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _do(given: Any) -> Any:
    global _work
    if _work is None:  # not in _begin, whose errors the pool would not tell
        _work = _make()
    return _work(given)
