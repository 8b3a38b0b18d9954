"""A signal becomes a flag; the flag becomes a decision that all ranks take at the same step.

Without torch, so that a process can take requests before it imports anything large.
"""

import signal
from types import FrameType, TracebackType

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)

STOPPED = 75
"""Exit status of a run that was asked to stop and can be continued: EX_TEMPFAIL of sysexits.h, "try again"."""


class StopRequests:
    """While entered, SIGTERM and SIGUSR1 are noted and do nothing else.

    Attributes:
        asked: one has come to this process.
    """

    def __init__(self) -> None:
        self.asked = False
        self._previous: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> "StopRequests":
        for number in _SIGNALS:
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
