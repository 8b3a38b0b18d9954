"""What is measured: one union member per evaluation."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from optical_scale.config.schema import Schema


class BitextRetrieval(Schema):
    """Foreign query to English passage, known item: each query has its own translation as the relevant passage."""

    name: Literal["bitext"]
    shards: Path
    """Bitext folder written by `optical-scale convert`."""
    languages: list[str] | None = None
    """Languages to measure; null measures all."""
    limit: PositiveInt | None = None
    """First pairs of each language only; null takes all."""


class ImageText(Schema):
    """Caption to image and image to caption."""

    name: Literal["image_text"]
    shards: Path
    """Image folder written by `optical-scale convert`."""
    languages: list[str] | None = None
    """Caption languages to measure; null measures all."""
    limit: PositiveInt | None = None
    """First images only; null takes all."""


Evaluation = Annotated[BitextRetrieval | ImageText, Field(discriminator="name")]


class Groups(Schema):
    """Which languages count as high- and low-resource in the gap."""

    high: Annotated[list[str], Field(min_length=1)]
    """Languages with much training data."""
    low: Annotated[list[str], Field(min_length=1)]
    """Languages with little."""
