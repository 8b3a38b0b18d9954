"""A signal becomes a flag; the flag becomes a decision that all ranks take at the same step."""

import signal
from types import FrameType, TracebackType

import torch

from optical_scale.runtime.collectives import any_rank

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Preemption:
    """While entered, SIGTERM and SIGUSR1 on any rank ask the run to stop after a checkpoint."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = device
        self.asked = False
        self._previous: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> "Preemption":
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

    def agreed(self) -> bool:
        """One collective: True on every rank as soon as any rank was asked."""
        return any_rank(self.asked, self.device)
