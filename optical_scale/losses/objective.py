"""What every objective is: a function of teacher and student token states that returns a sum and its weight."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from optical_scale.batch import PhraseRegions, Queries, TokenStates


class LossOutput(NamedTuple):
    """The unit of weight is the pair; division happens once, by the weight over all ranks and micro-batches.

    Attributes:
        sum: scalar with gradient, the sum of the loss over this micro-batch's pairs.
        weight: number of pairs.
        metrics: detached scalars, each a sum over this micro-batch's pairs.
    """

    sum: Tensor
    weight: int
    metrics: Mapping[str, Tensor]


class Objective(Protocol):
    """Compares row b of ``teacher`` (English) with row b of ``student``; both may carry gradient."""

    def __call__(self, teacher: TokenStates, student: TokenStates) -> LossOutput:
        """Loss of one micro-batch."""
        ...


class Passages(NamedTuple):
    """Passages beside the teacher's side of the pairs, where the student's side are queries.

    Attributes:
        negatives: token states of this micro-batch's R negatives, encoded as the teacher's side is; R may be 0.
        queries: whose negatives they are, what was recorded of them, and which texts are equal.
        rows: negatives of each rank.
    """

    negatives: TokenStates
    queries: Queries
    rows: tuple[int, ...]


class Moment(NamedTuple):
    """What an objective may know beside the states.

    Attributes:
        step: optimizer updates done before this one.
        rows: pairs of each rank in this micro-batch; None if nobody knows, then those who need it ask the ranks.
        passages: of queries; None where the sides of a pair are no query and passage, on all ranks.
        regions: phrases with boxes of this micro-batch; None if it has none.
    """

    step: int = 0
    rows: tuple[int, ...] | None = None
    passages: Passages | None = None
    regions: PhraseRegions | None = None


@runtime_checkable
class Timely(Protocol):
    """An objective that depends on the moment."""

    def at(self, moment: Moment) -> Objective:
        """The objective as it is at a moment."""
        ...


def at(objective: Objective, moment: Moment) -> Objective:
    """The objective as it is at a moment; most never change."""
    return objective.at(moment) if isinstance(objective, Timely) else objective


@dataclass(frozen=True, slots=True)
class Ramp:
    """A straight line from ``start`` at ``from_step`` to ``end`` at ``to_step``, constant before and after."""

    start: float
    end: float
    from_step: int
    to_step: int

    def at(self, step: int) -> float:
        """Value at an optimizer step."""
        done = (step - self.from_step) / (self.to_step - self.from_step)
        return self.start + (self.end - self.start) * min(1.0, max(0.0, done))


@dataclass(frozen=True, slots=True)
class AtLayers:
    """An objective on the states of inner layers.

    Attributes:
        objective: compares them.
        teacher: number of the teacher's layer, None for its output.
        student: the same of the student.
    """

    objective: Objective
    teacher: int | None
    student: int | None

    def at(self, moment: Moment) -> "AtLayers":
        """The same at a moment, whose negatives are seen in the teacher's layer too."""
        if (passages := moment.passages) is not None:
            moment = moment._replace(passages=passages._replace(negatives=passages.negatives.at_layer(self.teacher)))
        return replace(self, objective=at(self.objective, moment))

    def __call__(self, teacher: TokenStates, student: TokenStates) -> LossOutput:
        """Loss of one micro-batch."""
        return self.objective(teacher.at_layer(self.teacher), student.at_layer(self.student))


class Mixture:
    """A weighted sum of named objectives on the same token states.

    Args:
        parts: name, weight and objective of each part; a name or metric that comes again is reported as ``name_2``.
    """

    def __init__(self, parts: Sequence[tuple[str, float | Ramp, Objective]]) -> None:
        self.parts = parts

    def at(self, moment: Moment) -> "Mixture":
        """The mixture with the weights of an optimizer step, and its parts as they are then."""
        return Mixture(
            [
                (name, weight.at(moment.step) if isinstance(weight, Ramp) else weight, at(objective, moment))
                for name, weight, objective in self.parts
            ]
        )

    def __call__(self, teacher: TokenStates, student: TokenStates) -> LossOutput:
        """Sum of weight times loss; each part's own value, metrics and changing weight are reported under its name."""
        total = torch.zeros((), device=student.x_BTD.device)
        metrics: dict[str, Tensor] = {}
        seen: Counter[str] = Counter()
        for part, weight, objective in self.parts:
            assert not isinstance(weight, Ramp), "ask for the objective of a step: at(moment)"
            output = objective(teacher, student)
            # A part of weight zero is still computed, because ranks meet in it and its metrics are watched.
            total = total + weight * output.sum
            for name, value in {part: output.sum.detach(), **output.metrics}.items():
                seen[name] += 1
                metrics[name if seen[name] == 1 else f"{name}_{seen[name]}"] = value
        return LossOutput(total, len(student), metrics)
