"""What the student learns from the teacher: one union member per objective."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from optical_scale.config.schema import Schema


class OptimalTransport(Schema):
    """OPTICAL: <P, C> with C the cosine distance of teacher and student tokens and P the entropic transport plan."""

    name: Literal["optimal_transport"]
    epsilon: PositiveFloat = 0.02
    """Entropic regularisation in units of the cosine distance; keep it well below the spread of the cosines."""
    iterations: PositiveInt = 20
    """Sinkhorn iterations; the reached marginal error is logged."""


class PooledMSE(Schema):
    """Squared distance between the dense (mean-pooled, unit-length) embeddings of teacher and student."""

    name: Literal["mse"]


class Contrastive(Schema):
    """InfoNCE between dense embeddings, in both directions, with the pairs of all ranks as negatives."""

    name: Literal["contrastive"]
    temperature: PositiveFloat = 0.05
    """Divides the cosines before the softmax."""
    late_interaction: NonNegativeFloat = 0.0
    """Weight of the same loss on MaxSim scores of token vectors, beside weight 1 for the dense ones."""


class Weighted(Schema):
    """One part of a mixture."""

    weight: PositiveFloat
    objective: Annotated[OptimalTransport | PooledMSE | Contrastive, Field(discriminator="name")]


class Mixture(Schema):
    """A weighted sum of objectives computed on the same token states."""

    name: Literal["mixture"]
    parts: Annotated[list[Weighted], Field(min_length=1)]


Objective = Annotated[OptimalTransport | PooledMSE | Contrastive | Mixture, Field(discriminator="name")]
