"""Observers of a run. They read and record; what changes training is an argument of the trainer."""

import logging
from collections.abc import Mapping
from itertools import groupby
from typing import Any, Protocol

from optical_scale.runtime.log import MetricsFile
from optical_scale.training.state import TrainState

logger = logging.getLogger(__name__)


class Hook(Protocol):
    """Called on the main rank only."""

    def stepped(self, state: TrainState, values: Mapping[str, float]) -> None:
        """A logged step: loss, metrics, gradient norm, learning rate, pairs per second."""

    def evaluated(self, state: TrainState, results: list[dict[str, Any]]) -> None:
        """An evaluation has finished."""

    def ended(self, finished: bool) -> None:
        """No more events: the last step was taken, or the run was asked to stop before."""


class Console:
    """One line per logged step and per evaluation."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def stepped(self, state: TrainState, values: Mapping[str, float]) -> None:
        """Print the values in a fixed order."""
        shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        logger.info("step %d/%d  %s", state.step, self.steps, shown)

    def evaluated(self, state: TrainState, results: list[dict[str, Any]]) -> None:
        """Print one line per task: the mean reciprocal rank of every language, or the first metric without ranks."""
        for task, rows in groupby(sorted(results, key=_task), _task):
            shown = "  ".join(f"{row['language']} {row['metrics'][task[0]]:.3f}" for row in rows)
            logger.info("after step %d  %s of %-32s %s", state.step, task[0], " ".join(filter(None, task[1:])), shown)

    def ended(self, finished: bool) -> None:
        """Nothing to close."""


def _task(result: Mapping[str, Any]) -> tuple[str, ...]:
    part = result["evaluation"].partition(":")[2]
    metric = "MRR" if "MRR" in result["metrics"] else next(iter(result["metrics"]))
    return metric, result["direction"], result["mode"], part


class Metrics:
    """JSON lines for programs."""

    def __init__(self, file: MetricsFile) -> None:
        self.file = file

    def stepped(self, state: TrainState, values: Mapping[str, float]) -> None:
        """Append a ``step`` event."""
        self.file.write("step", {"step": state.step, **values})

    def evaluated(self, state: TrainState, results: list[dict[str, Any]]) -> None:
        """Append an ``evaluation`` event per result."""
        for result in results:
            self.file.write("evaluation", {"step": state.step, **result})

    def ended(self, finished: bool) -> None:
        """Close the file."""
        self.file.close()
