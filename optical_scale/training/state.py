"""What a run knows about itself beside weights: a few numbers, readable as JSON."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from optical_scale.errors import CheckpointError

_VERSION = 1

FINISHED = "finished.json"
"""The last state, in the run folder once nothing is left to train; absent after a stop on request."""


@dataclass(frozen=True, slots=True)
class Best:
    """The best evaluation so far.

    Attributes:
        metric: by which rule.
        step: optimizer updates done then.
        value: of the metric.
        since: evaluations without improvement after it.
    """

    metric: str
    step: int
    value: float
    since: int


@dataclass(frozen=True, slots=True)
class TrainState:
    """Progress after ``step`` optimizer updates.

    Attributes:
        step: optimizer updates done.
        pairs: pairs seen by all ranks together, by language.
        results: evaluations so far, each ``{"step", "evaluation", "language", "mode", "metric": value, …}``.
        losses: ``[step, loss]`` at every logged step, the mean since the logged step before.
        unlogged: losses of the steps since the last logged one.
        skipped: samples that could not be used, by reason, over all ranks.
        non_finite: steps of which the update was left out because a loss or gradient was not finite.
        best: of the evaluations after training began, where one is to be kept.
    """

    step: int = 0
    pairs: Mapping[str, int] = field(default_factory=dict)
    results: tuple[Mapping[str, Any], ...] = ()
    losses: tuple[tuple[int, float], ...] = ()
    unlogged: tuple[float, ...] = ()
    skipped: Mapping[str, int] = field(default_factory=dict)
    non_finite: int = 0
    best: Best | None = None

    @property
    def last_loss(self) -> float:
        """Of the newest step, as far as it is remembered."""
        return self.unlogged[-1] if self.unlogged else self.losses[-1][1] if self.losses else math.nan

    def after_step(self, loss: float) -> "TrainState":
        """The state one update of this mean loss later."""
        return replace(self, step=self.step + 1, unlogged=(*self.unlogged, loss))

    def after_non_finite(self) -> "TrainState":
        """The state one step without update later."""
        return replace(self, step=self.step + 1, non_finite=self.non_finite + 1)

    def with_pairs(self, pairs: Mapping[str, int]) -> "TrainState":
        """Remember how many pairs of each language all ranks have seen."""
        return replace(self, pairs=dict(pairs))

    def after_skipping(self, skipped: Mapping[str, int]) -> "TrainState":
        """The state after these samples were left out."""
        return replace(self, skipped=dict(Counter(self.skipped) + Counter(skipped)))

    def logged(self) -> "TrainState":
        """Close the window of unlogged steps: their mean loss becomes a point of the learning curve.

        Steps without an update have none; a window of nothing else leaves the curve as it is.
        """
        if not self.unlogged:
            return self
        loss = sum(self.unlogged) / len(self.unlogged)
        return replace(self, losses=(*self.losses, (self.step, loss)), unlogged=())

    def with_results(self, results: list[dict[str, Any]]) -> "TrainState":
        """Remember an evaluation."""
        return replace(self, results=(*self.results, *results))

    def with_best(self, best: Best) -> "TrainState":
        """Remember the best evaluation."""
        return replace(self, best=best)

    def to_json(self) -> dict[str, Any]:
        """A versioned plain dictionary."""
        return {
            "version": _VERSION,
            "step": self.step,
            "pairs": dict(self.pairs),
            "results": [dict(result) for result in self.results],
            "losses": [list(point) for point in self.losses],
            "unlogged": list(self.unlogged),
            "skipped": dict(self.skipped),
            "non_finite": self.non_finite,
            "best": None if self.best is None else asdict(self.best),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "TrainState":
        """Inverse of :meth:`to_json`.

        Raises:
            CheckpointError: written by a version this code does not know.
        """
        if values.get("version") != _VERSION:
            raise CheckpointError(
                f"train_state.json: found version {values.get('version')}; this release reads {_VERSION}"
            )
        return cls(
            step=values["step"],
            pairs=values["pairs"],
            results=tuple(values["results"]),
            losses=tuple((step, loss) for step, loss in values["losses"]),
            unlogged=tuple(values["unlogged"]),
            skipped=values.get("skipped", {}),
            non_finite=values.get("non_finite", 0),
            best=Best(**values["best"]) if values.get("best") else None,
        )
