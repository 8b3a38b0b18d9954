"""Which evaluation was the best so far, and whether it is time to stop looking for a better one."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optical_scale.errors import ConfigError
from optical_scale.training.state import Best, TrainState

_NAMES = ("evaluation", "direction", "mode", "language")


@dataclass(frozen=True, slots=True)
class Selection:
    """A rule over the evaluations of a run; the same on every rank.

    Attributes:
        metric: words joined by slashes, in any order and case: one names a metric, the others narrow down evaluation,
            direction, mode or language, for example ``bitext/late_interaction/MRR``. Larger is better.
        patience: evaluations in a row without improvement that end the run; None never does.
    """

    metric: str
    patience: int | None = None

    def value(self, results: Sequence[Mapping[str, Any]]) -> float:
        """The unweighted mean of the metric over the results that the words leave.

        Raises:
            ConfigError: the words name no metric, several, or leave nothing.
        """
        words = [word.casefold() for word in self.metric.split("/")]
        metrics = {name.casefold(): name for result in results for name in result["metrics"]}
        named = [metrics[word] for word in words if word in metrics]
        others = {word for word in words if word not in metrics}
        left = [result["metrics"] for result in results if others <= _words(result)]
        values = [values[named[0]] for values in left if named[0] in values] if len(named) == 1 else []
        if not values:
            known = sorted({word for result in results for word in _words(result)})
            raise ConfigError(
                f"checkpoints.keep_best: found {self.metric!r}, which fits no result; expected one of the metrics "
                f"{', '.join(metrics.values())}, and if wanted words of {', '.join(known)}, joined by slashes"
            )
        return math.fsum(values) / len(values)

    def after(self, state: TrainState, value: float) -> TrainState:
        """The state after an evaluation of this value at the state's step.

        A value must be larger to be an improvement: of equal ones the earliest stays. What another metric chose before
        counts for nothing.
        """
        best = state.best if state.best is not None and state.best.metric == self.metric else None
        if not math.isnan(value) and (best is None or value > best.value):
            return state.with_best(Best(self.metric, state.step, value, 0))
        if best is None:
            return state
        return state.with_best(Best(self.metric, best.step, best.value, best.since + 1))

    def exhausted(self, state: TrainState) -> bool:
        """Whether the run has been waiting for an improvement long enough."""
        best = state.best
        return (
            self.patience is not None
            and best is not None
            and best.metric == self.metric
            and (best.since >= self.patience)
        )


def _words(result: Mapping[str, Any]) -> set[str]:
    return {str(result[name]).casefold() for name in _NAMES}
