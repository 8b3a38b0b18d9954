"""How long a run is."""

import math
from bisect import bisect_left

from optical_scale.config.run import TrainConfig
from optical_scale.stream.plan import StepPlan
from optical_scale.stream.strand import Strands


def total_steps(config: TrainConfig, strands: Strands) -> int:
    """Optimizer steps of the whole run; with bucketing in whole epochs, so that no pair is left out.

    With several strands the run ends when each has had its epochs, or where their shares are given, the first.
    """
    how = config.optimization
    if how.steps is not None:
        return how.steps
    assert how.epochs is not None
    wanted = [_steps(how.epochs, strand.plan) for strand in strands.strands]
    counted = wanted if config.stream.shares is None else wanted[:1]

    def enough(steps: int) -> bool:
        return all(count >= least for count, least in zip(strands.counts(steps), counted, strict=False))

    most = sum(wanted)
    while not enough(most):
        most *= 2
    return bisect_left(range(most), True, key=enough)


def _steps(epochs: float, plan: StepPlan) -> int:
    if plan.bucketing:
        return math.ceil(epochs * plan.steps_per_epoch)
    return math.ceil(epochs * sum(plan.mixture.pairs.values()) / plan.pairs_per_step)
