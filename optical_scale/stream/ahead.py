"""The next micro-batches, made by a thread while the caller computes.

Reading files, tokenising and decoding images leave Python's lock to others most of the time, so a thread hides them
behind a step without the memory, the start-up time and the copies of a worker process.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator

from optical_scale.batch import PairBatch
from optical_scale.errors import OpticalScaleError

Outcome = PairBatch | OpticalScaleError
Key = tuple[int, int]
"""Step and number of a micro-batch."""

_PATIENCE = 30.0
"""Seconds that closing waits for a read under way; a remote one may take longer and is then left behind."""


class ReadAhead(Iterator[Outcome]):
    """What ``read`` gives for each of ``keys``, in order; the thread ends with the keys, an error or :meth:`close`.

    The thread stays within the step after the one that was last asked for, and starts no micro-batch while the ones
    that wait are ``most_bytes`` or more: it holds at most that and one micro-batch.

    Args:
        first: step of the first key.
        keys: ascending by step.
        read: makes one micro-batch.
        exclusive: held whenever ``keys`` or ``read`` is at work, so that others may use what these use.
        most_bytes: see above.
    """

    def __init__(
        self,
        first: int,
        keys: Iterator[Key],
        read: Callable[[Key], Outcome],
        exclusive: threading.Lock,
        most_bytes: int,
    ) -> None:
        self._keys = keys
        self._read = read
        self._exclusive = exclusive
        self._most_bytes = most_bytes
        self._ready: deque[tuple[int, Outcome | BaseException | None]] = deque()
        self._held = 0
        self._step = first
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="read-ahead", daemon=True)
        self._thread.start()

    @property
    def held(self) -> int:
        """Bytes of the micro-batches that wait."""
        return self._held

    def __next__(self) -> Outcome:
        """The next micro-batch, or what ``read`` raised for it.

        Raises:
            StopIteration: there are no more keys, or the thread was closed.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._closed)
            if not self._ready:
                raise StopIteration
            self._step, outcome = self._ready.popleft()
            self._held -= _bytes(outcome)
            self._changed.notify_all()
        if outcome is None:
            self.close()
            raise StopIteration
        if isinstance(outcome, BaseException) and not isinstance(outcome, OpticalScaleError):
            raise outcome
        return outcome

    def close(self) -> None:
        """Forget what waits and end the thread after the micro-batch it is reading."""
        with self._changed:
            self._closed = True
            self._ready.clear()
            self._held = 0
            self._changed.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join(_PATIENCE)

    def _work(self) -> None:
        end: BaseException | None = None
        try:
            while (key := self._next_key()) is not None and self._wait_for_turn(key[0]):
                with self._exclusive:
                    outcome = self._read(key)
                self._put(key[0], outcome)
        except BaseException as error:  # the caller's to handle, like an error of its own
            end = error
        self._put(self._step, end)

    def _next_key(self) -> Key | None:
        with self._exclusive:
            return next(self._keys, None)

    def _wait_for_turn(self, step: int) -> bool:
        """False if there will be none."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or (self._held < self._most_bytes and step <= self._step + 1),
            )
            return not self._closed

    def _put(self, step: int, outcome: Outcome | BaseException | None) -> None:
        with self._changed:
            if not self._closed:
                self._ready.append((step, outcome))
                self._held += _bytes(outcome)
                self._changed.notify_all()


def _bytes(outcome: Outcome | BaseException | None) -> int:
    return outcome.nbytes if isinstance(outcome, PairBatch) else 0
