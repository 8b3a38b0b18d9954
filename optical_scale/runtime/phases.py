"""Seconds and memory of the parts of a step."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


@dataclass(slots=True)
class Phase:
    """What one part has cost since the last reset.

    Attributes:
        seconds: wall-clock time; on a GPU, from when the part's work begins there until it ends.
        peak_bytes: most memory held while it ran: of the process on CPUs, of torch's allocator on a GPU. 0 if memory is
            not watched.
    """

    seconds: float = 0.0
    peak_bytes: int = 0


class Phases:
    """Measures named parts: ``with phases("teacher"): ...``.

    Args:
        device: whose time and memory count.
        memory: also watch memory, which makes a GPU wait after every part.
    """

    def __init__(self, device: torch.device | str = "cpu", *, memory: bool = False) -> None:
        self.device = torch.device(device)
        self.memory = memory
        self._done: dict[str, Phase] = {}
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Add what the block costs to the part ``name``."""
        phase = self._done.setdefault(name, Phase())
        if self.memory:
            reset_peak(self.device)
        events = None
        if self.device.type == "cuda":
            # Kernels run later than Python; waiting for each part would slow the step down.
            events = _event(), _event()
            events[0].record()
        started = time.perf_counter()
        yield
        if events is None:
            phase.seconds += time.perf_counter() - started
        else:
            events[1].record()
            self._events.append((name, *events))
        if self.memory:
            phase.peak_bytes = max(phase.peak_bytes, peak_bytes(self.device))

    def close(self) -> dict[str, Phase]:
        """All parts since the last call; the measurement starts again."""
        if self._events:
            torch.cuda.synchronize(self.device)
        for name, start, stop in self._events:
            self._done[name].seconds += start.elapsed_time(stop) / 1e3
        done, self._done, self._events = self._done, {}, []
        return done


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def reset_peak(device: torch.device | str = "cpu") -> None:
    """Forget the highest use of memory so far."""
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with contextlib.suppress(OSError):  # some containers forbid it; the peak is then that of the whole process
            _CLEAR.write_text("5")


def peak_bytes(device: torch.device | str = "cpu") -> int:
    """The highest use of memory since :func:`reset_peak`: torch's on a GPU, else all that is resident."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device)
    return _resident("VmHWM")


def _resident(field: str) -> int:
    """Bytes of a field of Linux's process status; 0 on other systems."""
    with contextlib.suppress(OSError):
        for line in _STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    return 0
