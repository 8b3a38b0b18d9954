"""What the student learns from the teacher: one union member per objective."""

from typing import Annotated, Any, Literal

from pydantic import (
    Discriminator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Tag,
    model_validator,
)

from optical_scale.config.schema import NUMBER, Schema

TokenWeights = Literal["uniform", "idf"]


class Ramp(Schema):
    """A number that moves in a straight line during training and stays at its ends before and after."""

    start: NonNegativeFloat
    """Value up to `from_step`."""
    end: NonNegativeFloat
    """Value from `to_step` on."""
    from_step: NonNegativeInt = 0
    """Optimizer step at which it begins to move."""
    to_step: PositiveInt
    """Optimizer step at which it arrives."""

    @model_validator(mode="after")
    def _forward(self) -> "Ramp":
        if self.to_step <= self.from_step:
            raise ValueError(f"to_step ({self.to_step}) must lie after from_step ({self.from_step})")
        return self


def _ramp_or_number(value: Any) -> str:
    return "Ramp" if isinstance(value, dict | Ramp) else NUMBER


_LEAST_EPSILON = 1e-4
"""Of a cost in [0, 2]; below it the kernel of float32 holds nothing, and 0.005 is already sharp."""
Epsilon = Annotated[float, Field(ge=_LEAST_EPSILON)]
EpsilonOrRamp = Annotated[
    Annotated[Epsilon, Tag(NUMBER)] | Annotated[Ramp, Tag("Ramp")], Discriminator(_ramp_or_number)
]
WeightOrRamp = Annotated[
    Annotated[PositiveFloat, Tag(NUMBER)] | Annotated[Ramp, Tag("Ramp")], Discriminator(_ramp_or_number)
]


class OptimalTransport(Schema):
    """OPTICAL: <P, C> with C the cosine distance of teacher and student tokens and P the entropic transport plan."""

    name: Literal["optimal_transport"]
    epsilon: EpsilonOrRamp = 0.02
    """Entropic regularisation in units of the cosine distance; keep it well below the spread of the cosines."""
    epsilon_mode: Literal["absolute", "relative"] = "absolute"
    """relative: epsilon counts standard deviations of each pair's cosines; 0.15 is a good start, 0.01 the floor."""
    iterations: PositiveInt = 20
    """Sinkhorn iterations, or proximal steps of `ipot`; the reached marginal error is logged."""
    solver: Literal["sinkhorn", "ipot"] = "sinkhorn"
    """ipot: inexact proximal point (Xie et al. 2020) with step size `iterations` x `epsilon`."""
    anneal: list[Annotated[float, Field(ge=1.0)]] = []
    """Multiples of epsilon, one Sinkhorn iteration each, that are run first: [8, 4, 2]."""
    marginals: Literal["uniform", "norm", "attention", "idf"] = "uniform"
    """How much mass a token has: the same for all; in proportion to the length of its vector; what attention with the
    sentence's mean as its query pays it; or in proportion to its inverse document frequency among the training
    sentences of its language."""
    rho: PositiveFloat | None = None
    """Unbalanced: marginals are pulled by a penalty of this strength, in units of the cosine distance."""
    mass: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Partial: only this share of the mass is moved, the cheapest first."""
    debias: bool = False
    """Subtract half of the student's transport to itself, which takes the pull towards the sentence's mean away."""
    order: NonNegativeFloat = 0.0
    """Adds this times the squared distance of the relative positions to the cost; 0 ignores word order."""

    @model_validator(mode="after")
    def _solvable(self) -> "OptimalTransport":
        if isinstance(self.epsilon, Ramp) and min(self.epsilon.start, self.epsilon.end) < _LEAST_EPSILON:
            raise ValueError(
                f"epsilon must not fall below {_LEAST_EPSILON:g} on its way; raise start or end, 0.005 is already sharp"
            )
        if self.rho is not None and self.mass is not None:
            raise ValueError("rho (unbalanced) and mass (partial) exclude each other; set one of them to null")
        if self.debias and (self.rho is not None or self.mass is not None):
            raise ValueError("debias needs balanced transport; set rho and mass to null, or debias to false")
        if self.solver == "ipot" and self.anneal:
            raise ValueError(
                "ipot runs its own epsilons, from iterations x epsilon down to epsilon; leave anneal empty"
            )
        return self


class PooledMSE(Schema):
    """Squared distance between the dense (mean-pooled, unit-length) embeddings of teacher and student."""

    name: Literal["mse"]
    token_weights: TokenWeights = "uniform"
    """idf: compare means weighted by inverse document frequency; what is evaluated and exported is the plain mean."""


class TokenMSE(Schema):
    """Squared distance of student tokens from the teacher's, which the transport plan aligns; lengths matter."""

    name: Literal["token_mse"]
    epsilon: Epsilon = 0.02
    """Entropic regularisation of the alignment, in units of the cosine distance."""
    iterations: PositiveInt = 20
    """Sinkhorn iterations."""


class TokenKL(Schema):
    """KL divergence of a student token's softmax over the sentence's teacher tokens from that of those it aligns to."""

    name: Literal["token_kl"]
    epsilon: Epsilon = 0.02
    """Entropic regularisation of the alignment, in units of the cosine distance."""
    iterations: PositiveInt = 20
    """Sinkhorn iterations."""
    temperature: PositiveFloat = 0.1
    """Divides the cosines before the softmax."""


class Greedy(Schema):
    """Cosine distance of each token to the nearest token of the other side, without regard to who else chose it."""

    name: Literal["greedy"]
    direction: Literal["student", "teacher", "both"] = "student"
    """Whose tokens choose: the student's (Dr.DECR), the teacher's, or the mean of both."""


class Contrastive(Schema):
    """InfoNCE between embeddings, with the pairs of all ranks and the negatives of `stream.negatives` to tell apart."""

    name: Literal["contrastive"]
    temperature: PositiveFloat = 0.05
    """Divides the scores before the softmax."""
    dense: NonNegativeFloat = 1.0
    """Weight of the loss on cosines of dense embeddings."""
    late_interaction: NonNegativeFloat = 0.0
    """Weight of the same loss on MaxSim scores of token vectors, divided by the number of query tokens."""
    symmetric: bool = True
    """Mean of both directions; false: the student's side searches the teacher's only, as queries search passages."""
    exchange: Literal["gather", "turns"] = "gather"
    """turns: one rank's embeddings at a time and scores in blocks, for batches whose score matrix does not fit."""
    token_weights: TokenWeights = "uniform"
    """idf: weigh the tokens of an embedding, and the query tokens of MaxSim, by inverse document frequency."""

    @model_validator(mode="after")
    def _dense(self) -> "Contrastive":
        if not (self.dense or self.late_interaction):
            raise ValueError("dense and late_interaction are both 0, so nothing is learned; set one of them")
        if self.exchange == "turns" and (self.late_interaction or not self.symmetric):
            raise ValueError(
                "exchange: turns has dense scores in both directions only; set late_interaction to 0 and symmetric to "
                "true, or exchange to gather"
            )
        return self


class SigLIP(Schema):
    """Sigmoid loss on every pair of dense embeddings of all ranks: true pairs up, all others down, each by itself."""

    name: Literal["siglip"]
    temperature: PositiveFloat = 0.05
    """Divides the cosines."""
    bias: float = -10.0
    """Added to the scaled cosines; the decision lies at cosine -bias x temperature."""


class ListKL(Schema):
    """KL divergence of the student's scores of in-batch English passages from the teacher's (translate-distill)."""

    name: Literal["list_kl"]
    temperature: PositiveFloat = 0.05
    """Divides both sides' scores, which lie in [-1, 1]."""
    scores: Literal["maxsim", "dense"] = "maxsim"
    """MaxSim of token vectors divided by the number of query tokens, or cosines of dense embeddings."""
    token_weights: TokenWeights = "uniform"
    """idf: weigh the query tokens of MaxSim, and the tokens of an embedding, by inverse document frequency."""


class ScoreKL(Schema):
    """KL divergence of the student's scores of a query's own passages from recorded ones, as of a cross-encoder."""

    name: Literal["score_kl"]
    temperature: PositiveFloat = 0.05
    """Divides the student's scores, which lie in [-1, 1]."""
    score_temperature: PositiveFloat = 1.0
    """Divides the recorded scores."""
    scores: Literal["maxsim", "dense"] = "maxsim"
    """MaxSim of token vectors divided by the number of query tokens, or cosines of dense embeddings."""


class MarginMSE(Schema):
    """Squared distance of the student's margins between a query's passage and its negatives from recorded ones."""

    name: Literal["margin_mse"]
    temperature: PositiveFloat = 0.05
    """Divides the student's scores, which lie in [-1, 1], so that margins can be as large as the recorded ones."""
    scores: Literal["maxsim", "dense"] = "maxsim"
    """MaxSim of token vectors divided by the number of query tokens, or cosines of dense embeddings."""


class RegionAlignment(Schema):
    """-log of the share of a phrase's attention over patches that falls into its boxes; for vision students.

    It needs a source with phrases and boxes, as Flickr30k-Entities; pairs without phrases contribute nothing.
    """

    name: Literal["region_alignment"]
    temperature: PositiveFloat = 0.05
    """Divides the cosines of a token with the patches before the softmax."""


Single = (
    OptimalTransport
    | PooledMSE
    | TokenMSE
    | TokenKL
    | Greedy
    | Contrastive
    | SigLIP
    | ListKL
    | ScoreKL
    | MarginMSE
    | RegionAlignment
)


class Layers(Schema):
    """Layers that an objective compares: 0 are the embeddings, n is what layer n, from 1, puts out, null the output."""

    teacher: NonNegativeInt | None = None
    """Layer of the teacher; a cache has to keep it."""
    student: NonNegativeInt | None = None
    """Layer of the student, counted after `layers` of its backbone has chosen."""


class Weighted(Schema):
    """One part of a mixture."""

    weight: WeightOrRamp
    """A number, or one that changes during training: {start: 0, end: 1, to_step: 1000}."""
    objective: Annotated[Single, Field(discriminator="name")]
    layers: Layers = Layers()
    """Compare inner layers, each after its encoder's head: {teacher: 3, student: 1}."""

    @model_validator(mode="after")
    def _teaches(self) -> "Weighted":
        if isinstance(self.weight, Ramp) and not max(self.weight.start, self.weight.end) > 0:
            raise ValueError("weight is 0 from start to end, so nothing is learned; raise one, or take this part out")
        return self


class Mixture(Schema):
    """A weighted sum of objectives computed on the same token states."""

    name: Literal["mixture"]
    parts: Annotated[list[Weighted], Field(min_length=1)]


Objective = Annotated[
    Single | Mixture,
    Field(discriminator="name"),
]


def parts_of(objective: Objective) -> list[Single]:
    """The objectives that are computed: one, or those of a mixture."""
    return [part.objective for part in objective.parts] if isinstance(objective, Mixture) else [objective]


def layers_of(objective: Objective) -> list[Layers]:
    """The layers that the parts of a mixture compare."""
    return [part.layers for part in objective.parts] if isinstance(objective, Mixture) else []


def weighs_by_idf(objective: Objective) -> bool:
    """Whether inverse document frequencies are read."""
    keys = ("marginals", "token_weights")
    return any(getattr(part, key, None) == "idf" for part in parts_of(objective) for key in keys)


def names(objective: Objective) -> set[str]:
    """The names of the objectives that are computed."""
    return {part.name for part in parts_of(objective)}
