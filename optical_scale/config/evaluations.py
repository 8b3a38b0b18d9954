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


class CollectionRetrieval(Schema):
    """Topics in many languages to documents, by graded judgements: nDCG@10, MAP, MRR, P@10, R@k."""

    name: Literal["collection"]
    path: Path
    """Collection folder written by `optical-scale convert`."""
    languages: list[str] | None = None
    """Languages of topics to measure; null measures all."""
    passage_words: Annotated[int, Field(ge=2)] | None = None
    """Longer documents are cut into passages of so many words, and count as their best one; null: the encoder cuts."""


class Grounding(Schema):
    """Phrases of captions to regions of the image by the transport plan: pointing game, recall at IoU 0.5, by type."""

    name: Literal["grounding"]
    shards: Path
    """Image folder written by `optical-scale convert` from a corpus with phrases and boxes."""
    languages: list[str] | None = None
    """Caption languages to measure; null measures all that have phrases."""
    limit: PositiveInt | None = None
    """First images only; null takes all."""
    epsilon: Annotated[float, Field(gt=0)] = 0.02
    """Entropic regularisation of the plan between a caption and its image."""
    box_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the greatest mass that a patch needs to belong to the box of a phrase."""


class EntityRetrieval(Schema):
    """Phrases of captions to the regions of all images, and to the images that hold them: R@1, R@5, R@10, by type."""

    name: Literal["entity_retrieval"]
    shards: Path
    """Image folder written by `optical-scale convert` from a corpus with phrases and boxes."""
    languages: list[str] | None = None
    """Caption languages to measure; null measures all that have phrases."""
    limit: PositiveInt | None = None
    """First images only; null takes all."""


Evaluation = Annotated[
    BitextRetrieval | ImageText | CollectionRetrieval | Grounding | EntityRetrieval, Field(discriminator="name")
]


class Groups(Schema):
    """Which languages count as high- and low-resource in the gap."""

    high: Annotated[list[str], Field(min_length=1)]
    """Languages with much training data."""
    low: Annotated[list[str], Field(min_length=1)]
    """Languages with little."""
