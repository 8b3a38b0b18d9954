"""How long a run is."""

import math

from optical_scale.config.run import TrainConfig
from optical_scale.stream.plan import StepPlan


def total_steps(config: TrainConfig, plan: StepPlan) -> int:
    """Optimizer steps of the whole run; with bucketing in whole epochs, so that no pair is left out."""
    how = config.optimization
    if how.steps is not None:
        return how.steps
    assert how.epochs is not None
    if plan.bucketing:
        return math.ceil(how.epochs * plan.steps_per_epoch)
    return math.ceil(how.epochs * sum(plan.mixture.pairs.values()) / config.stream.pairs_per_step)
