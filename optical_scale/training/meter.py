"""How fast a run is, and what its time and memory go to."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from optical_scale.backbones.flops import Flops
from optical_scale.batch import PairBatch, PatchBatch, TokenBatch
from optical_scale.runtime.phases import Phase, peak_bytes, reset_peak


@dataclass(frozen=True, slots=True)
class Work:
    """What one rank computes for a batch.

    Attributes:
        teacher: None where none computes: a cached one, or a student that reads both sides.
        texts: the network that learns texts; None in a run of images alone.
        images: the network that learns images.
        both_sides: the student reads the English side too.
        peak: floating-point operations per second of the device at most; None if it is not known.
    """

    teacher: Flops | None = None
    texts: Flops | None = None
    images: Flops | None = None
    both_sides: bool = False
    peak: float | None = None

    def flops(self, batch: PairBatch) -> float:
        """Forward and backward, padding left out."""
        source = _lengths(batch.source, self.teacher)
        total = self.teacher.forward(source) if self.teacher else 0.0
        student = self.images if isinstance(batch.target, PatchBatch) else self.texts
        lengths = _lengths(batch.target, student)
        if self.both_sides:
            lengths = [*source, *lengths]
        return total + (student.forward(lengths) + student.backward(lengths) if student else 0.0)


class Meter:
    """Adds up the steps since the last log line; evaluations and checkpoints do not count.

    Args:
        device: whose memory is watched.
        work: what a batch costs; the default knows nothing, and leaves out the share of the peak.
    """

    def __init__(self, device: torch.device | str = "cpu", work: Work | None = None) -> None:
        self._device, self._work = device, work or Work()
        self._kinds: set[str] = set()
        self.restart()

    def restart(self) -> None:
        """Forget what was added."""
        self._started = time.perf_counter()
        self._steps = self._pairs = self._tokens = 0
        self._waited = self._flops = 0.0
        self._losses: dict[str, list[float]] = {}
        if torch.device(self._device).type == "cuda":
            reset_peak(self._device)

    def add(self, micro_batches: Sequence[PairBatch], loss: float) -> None:
        """Count a step of this rank."""
        self._steps += 1
        for batch in micro_batches:
            self._pairs += len(batch.languages)
            for side in (batch.source, batch.target):
                self._tokens += sum(_lengths(side))
            if self._work.peak is not None:
                self._flops += self._work.flops(batch)
        kind = "images" if isinstance(micro_batches[0].target, PatchBatch) else "texts"
        self._kinds.add(kind)
        self._losses.setdefault(kind, []).append(loss)

    def wait(self, seconds: float) -> None:
        """Count time without work."""
        self._waited += seconds

    def close(self, steps_left: int, phases: Mapping[str, Phase]) -> dict[str, float]:
        """The values of a log line, each of this rank.

        ``pairs_per_second_per_rank``; ``tokens_per_second_per_rank`` of both sides, padding left out; ``data_wait``,
        the share of the time that this rank waited for data, or for other ranks' data; ``objective_share``, that of
        comparing teacher and student in the time of computing; ``mfu``, the share of the device's peak; ``memory_gib``,
        the most held, of the process on a CPU; ``hours_left`` for the steps that are left, evaluations not counted;
        and each tower's loss where there are two.
        """
        elapsed = max(1e-9, time.perf_counter() - self._started)
        computing = sum(phase.seconds for phase in phases.values())
        values = {
            "pairs_per_second_per_rank": self._pairs / elapsed,
            "tokens_per_second_per_rank": self._tokens / elapsed,
            "data_wait": self._waited / elapsed,
        }
        if "objective" in phases:
            values["objective_share"] = phases["objective"].seconds / max(1e-9, computing)
        if self._work.peak is not None:
            values["mfu"] = self._flops / elapsed / self._work.peak
        values["memory_gib"] = peak_bytes(self._device) / 2**30
        values["hours_left"] = steps_left * elapsed / max(1, self._steps) / 3600
        if len(self._kinds) > 1:
            values |= {f"loss_{kind}": sum(losses) / len(losses) for kind, losses in self._losses.items()}
        self.restart()
        return values


_SHOWN = {
    "tokens_per_second_per_rank": "{:,.0f} tokens/s",
    "pairs_per_second_per_rank": "{:,.1f} pairs/s",
    "mfu": "MFU {:.0%}",
    "data_wait": "data {:.0%}",
    "objective_share": "objective {:.0%}",
    "memory_gib": "{:.1f} GiB",
}


def speed_of(values: Mapping[str, float]) -> list[str]:
    """The values of :meth:`Meter.close` in short, for the progress bar, which knows the time left by itself."""
    return [shown.format(values[name]) for name, shown in _SHOWN.items() if name in values]


def _lengths(batch: TokenBatch | PatchBatch, network: Flops | None = None) -> list[int]:
    """Tokens of each text; of each image as many as ``network`` makes of it."""
    if isinstance(batch, PatchBatch):
        return [network.patches if network else 0] * len(batch)
    return [int(length) for length in batch.attention_BT.sum(1).tolist()]
