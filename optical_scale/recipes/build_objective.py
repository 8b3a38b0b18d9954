"""Objective configurations become objectives."""

from typing import assert_never

from optical_scale.config import objectives as schema
from optical_scale.losses.contrastive import Contrastive
from optical_scale.losses.greedy import GreedyAlignment
from optical_scale.losses.list_kl import ListKL
from optical_scale.losses.mse import PooledMSE
from optical_scale.losses.objective import AtLayers, Mixture, Objective, Ramp
from optical_scale.losses.optimal_transport import OptimalTransport
from optical_scale.losses.region_alignment import RegionAlignment
from optical_scale.losses.score_lists import MarginMSE, ScoreKL
from optical_scale.losses.siglip import SigLIP
from optical_scale.losses.token_level import TokenKL, TokenMSE


def objective(config: schema.Objective) -> Objective:
    """The objective that ``config`` describes."""
    match config:
        case schema.OptimalTransport():
            return OptimalTransport(
                epsilon=_number(config.epsilon),
                iterations=config.iterations,
                epsilon_mode=config.epsilon_mode,
                solver=config.solver,
                anneal=tuple(config.anneal),
                marginals=config.marginals,
                rho=config.rho,
                mass=config.mass,
                debias=config.debias,
                order=config.order,
            )
        case schema.PooledMSE():
            return PooledMSE(config.token_weights)
        case schema.TokenMSE():
            return TokenMSE(config.epsilon, config.iterations)
        case schema.TokenKL():
            return TokenKL(config.epsilon, config.iterations, config.temperature)
        case schema.Greedy():
            return GreedyAlignment(config.direction)
        case schema.Contrastive():
            return Contrastive(
                config.temperature,
                config.dense,
                config.late_interaction,
                config.symmetric,
                config.exchange,
                config.token_weights,
            )
        case schema.SigLIP():
            return SigLIP(config.temperature, config.bias)
        case schema.ListKL():
            return ListKL(config.temperature, config.scores, config.token_weights)
        case schema.ScoreKL():
            return ScoreKL(config.temperature, config.score_temperature, config.scores)
        case schema.MarginMSE():
            return MarginMSE(config.temperature, config.scores)
        case schema.RegionAlignment():
            return RegionAlignment(config.temperature)
        case schema.Mixture():
            return Mixture([(part.objective.name, _number(part.weight), _part(part)) for part in config.parts])
        case _:
            assert_never(config)


def _part(config: schema.Weighted) -> Objective:
    built, where = objective(config.objective), config.layers
    return built if where == schema.Layers() else AtLayers(built, where.teacher, where.student)


def _number(value: float | schema.Ramp) -> float | Ramp:
    return Ramp(**value.model_dump()) if isinstance(value, schema.Ramp) else value
