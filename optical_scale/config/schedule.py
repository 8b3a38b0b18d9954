"""Optimizer, learning rate and when things happen."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from optical_scale.config.schema import Schema

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class Optimization(Schema):
    """AdamW with warm-up; exactly one of `steps` and `epochs` says how long."""

    steps: PositiveInt | None = None
    """Optimizer updates."""
    epochs: PositiveFloat | None = None
    """Passes over all pairs of the stream together, rounded up to whole steps."""
    learning_rate: PositiveFloat = 5e-4
    """Peak learning rate."""
    embedding_rate: PositiveFloat = 1.0
    """Multiplies the learning rate of the input embeddings; a new vocabulary learns best with 5 to 10."""
    warmup: Fraction = 0.1
    """Share of the steps with linearly rising learning rate."""
    decay: Literal["linear", "cosine", "constant"] = "linear"
    """Shape after warm-up; linear and cosine end at zero."""
    weight_decay: NonNegativeFloat = 0.01
    """Decoupled; biases and normalisation weights are exempt."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.98)
    """Adam's moment decays."""
    most_non_finite: NonNegativeInt = 0
    """Steps of the run whose update may be left out because the loss or its gradient is not finite (nan, inf); the next
    one stops it, before its update. fp16's lowering of the loss scale does not count."""

    @model_validator(mode="after")
    def _one_length(self) -> "Optimization":
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give exactly one of `steps` and `epochs`")
        return self


class Checkpoints(Schema):
    """When checkpoints are written and how many are kept."""

    every: PositiveInt | None = None
    """Steps between checkpoints; null writes only the last one."""
    keep: PositiveInt = 2
    """Newest checkpoints to keep; the one of step 0 and the best one are kept besides."""
    at_start: bool = False
    """Also write the untrained student, to measure what training adds."""
    asynchronous: bool = False
    """Go on training while what is written is flushed to the disk and hashed. It does not count until then, so a run
    that is killed meanwhile continues from the checkpoint before."""
    keep_best: str | None = None
    """Keep the checkpoint with the highest mean of a metric of `evaluation`, as `checkpoints/best`: for example
    bitext/MRR, or narrower bitext/late_interaction/MRR/sw. null keeps the newest ones only."""
    patience: PositiveInt | None = None
    """With keep_best: evaluations in a row without improvement after which the run ends; null goes to the last step."""

    @model_validator(mode="after")
    def _patience_waits_for_something(self) -> "Checkpoints":
        if self.patience is not None and self.keep_best is None:
            raise ValueError("`patience` waits for a better metric; name it in `keep_best`, for example bitext/MRR")
        return self


class Logging(Schema):
    """What is reported while training."""

    every: PositiveInt = 10
    """Steps between log lines."""
    peak_teraflops: PositiveFloat | None = None
    """What a device can do at most, in 1e12 operations per second, for the logged share of it (`mfu`); null knows
    common GPUs in 16-bit types and logs no share on others."""
    trackers: list[Literal["tensorboard", "wandb", "mlflow"]] = []
    """Shown there too, beside metrics.jsonl. Addresses and keys come from their own environment variables."""
    project: str = "optical_scale"
    """Project of W&B, experiment of MLflow."""
    name: str | None = None
    """Name of the run there; null: that of the run folder."""


class EvaluationTimes(Schema):
    """When the evaluations run inside training."""

    every: NonNegativeInt = 0
    """Steps between evaluations; 0 evaluates only at the start and at the end."""
    batch_size: PositiveInt = 64
    """Texts that one rank encodes at once."""


class Limit(Schema):
    """Where a logged metric may not stay."""

    metric: str
    """Any logged metric: token_variance, uniformity, margin, marginal_error, effective_matches, gradient_norm, …"""
    above: float | None = None
    """The alarm counts values above this."""
    below: float | None = None
    """The alarm counts values below this."""

    @model_validator(mode="after")
    def _one_side(self) -> "Limit":
        if self.above is None and self.below is None:
            raise ValueError(f"the limit of {self.metric} has neither `above` nor `below`; give one of them")
        return self


class Alarms(Schema):
    """When a run stops because its student has collapsed; the metrics themselves are always logged."""

    after: PositiveInt = 20
    """Consecutive logged steps outside a limit that stop the run."""
    limits: list[Limit] = [Limit(metric="uniformity", above=-0.001), Limit(metric="token_variance", below=1e-6)]
    """What stops a run; [] for nothing. The default asks for embeddings that are all the same to four digits."""
