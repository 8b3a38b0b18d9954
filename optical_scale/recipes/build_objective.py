"""Objective configurations become objectives."""

from typing import assert_never

from optical_scale.config import objectives as schema
from optical_scale.losses.contrastive import Contrastive
from optical_scale.losses.mse import PooledMSE
from optical_scale.losses.objective import Mixture, Objective
from optical_scale.losses.optimal_transport import OptimalTransport


def objective(config: schema.Objective) -> Objective:
    """The objective that ``config`` describes."""
    match config:
        case schema.OptimalTransport():
            return OptimalTransport(config.epsilon, config.iterations)
        case schema.PooledMSE():
            return PooledMSE()
        case schema.Contrastive():
            return Contrastive(config.temperature, config.late_interaction)
        case schema.Mixture():
            return Mixture([(part.objective.name, part.weight, objective(part.objective)) for part in config.parts])
        case _:
            assert_never(config)
