"""What every objective is: a function of teacher and student token states that returns a sum and its weight."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

from optical_scale.batch import TokenStates


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


class Mixture:
    """A weighted sum of named objectives on the same token states.

    Args:
        parts: name, weight and objective of each part; a name or metric that comes again is reported as ``name_2``.
    """

    def __init__(self, parts: Sequence[tuple[str, float, Objective]]) -> None:
        self.parts = parts

    def __call__(self, teacher: TokenStates, student: TokenStates) -> LossOutput:
        """Sum of weight times loss; each part's own value and metrics are reported under its name."""
        outputs = [(name, weight, objective(teacher, student)) for name, weight, objective in self.parts]
        total = sum(weight * output.sum for _, weight, output in outputs)
        assert isinstance(total, Tensor)
        metrics: dict[str, Tensor] = {}
        seen: Counter[str] = Counter()
        for part, _, output in outputs:
            for name, value in {part: output.sum.detach(), **output.metrics}.items():
                seen[name] += 1
                metrics[name if seen[name] == 1 else f"{name}_{seen[name]}"] = value
        return LossOutput(total, len(student), metrics)
