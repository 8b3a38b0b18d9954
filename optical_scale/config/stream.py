"""Which shards are read, in which proportion, and how many pairs make a step."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from optical_scale.config.schema import Schema


class Source(Schema):
    """A folder written by `optical-scale convert`."""

    shards: Path
    """Folder with manifest.json."""
    languages: list[str] | None = None
    """Languages to take; null takes all."""


class Stream(Schema):
    """The training stream."""

    sources: Annotated[list[Source], Field(min_length=1)]
    """All must hold bitext, or all images."""
    pairs_per_step: PositiveInt
    """Pairs behind one optimizer update, over all ranks and accumulation."""
    micro_batch_pairs: PositiveInt
    """Pairs that one rank encodes at once; accumulation follows from the three numbers."""
    temperature: PositiveFloat = 1.0
    """T in p ∝ n^(1/T) over languages; 1 is proportional to size, larger values favour small languages."""
    weights: dict[str, PositiveFloat] | None = None
    """Explicit language weights instead of the temperature rule."""
    workers: NonNegativeInt = 0
    """Loader processes per rank."""
