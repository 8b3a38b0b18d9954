"""Which network encodes a side: text or vision, from weights on disk or from scratch."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from optical_scale.config.schema import Schema


class TextBackbone(Schema):
    """A Hugging Face text encoder with an optional linear projection of its token vectors."""

    kind: Literal["text"] = "text"
    pretrained: Path | None = None
    """Folder of transformers, sentence-transformers, PyLate or ColBERT with safetensors weights, whose linear module
    becomes the head; of a CLIP or SigLIP folder its text tower, with CLIP's projection as the head. null builds the
    network of `architecture` at random."""
    architecture: dict[str, Any] | None = None
    """Hugging Face configuration for a network from scratch; must name `model_type`, for example xlm-roberta."""
    layers: list[int] | None = None
    """Layers of `pretrained` to keep, in order (0 is the first); null keeps all."""
    tokenizer: Path | None = None
    """Tokenizer folder; null takes the one in `pretrained`."""
    vocabulary: Literal["keep", "match", "translate"] = "keep"
    """keep: the tokenizer belongs to the weights. match: another tokenizer; its pieces start from the mean of the
    vectors that the pretrained tokenizer gives them. translate: as match, but pieces that occur in the run's bitext
    start from the vectors of their English translations, learned from up to 100,000 pairs in seconds; student only."""
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Probability in all dropout layers; null keeps what the configuration says."""
    head: PositiveInt | None = None
    """Width of a linear projection after the backbone; null takes the folder's own head, and without one the width of
    the backbone. A projection of CLIP or ColBERT gives way to another width. A new one is random; a teacher's stays
    so."""
    max_tokens: PositiveInt = 128
    """Longer texts are cut, special tokens included in the count."""
    prefix: str = ""
    """Text put before every input, for example a query marker of the pretrained model: "query: ", "[unused0] "."""
    passage_prefix: str | None = None
    """The same for passages, which are the English side of pairs and the documents of collections: "passage: ". null
    takes `prefix`. A marker in the vocabulary, as "[unused1]", becomes one token."""
    mask_punctuation: bool = False
    """Tokens of punctuation alone take no part in MaxSim, transport and other token-level scores, as in ColBERT."""

    @model_validator(mode="after")
    def _one_origin(self) -> "TextBackbone":
        if (self.pretrained is None) == (self.architecture is None):
            raise ValueError(
                "give either `pretrained` (a folder) or `architecture` (a configuration), not both or none"
            )
        if self.architecture is not None:
            if self.tokenizer is None:
                raise ValueError("a network from scratch needs `tokenizer`, the folder of a trained tokenizer")
            if "model_type" not in self.architecture:
                raise ValueError("`architecture` must name `model_type`, for example xlm-roberta")
            if self.layers is not None or self.vocabulary != "keep":
                raise ValueError("`layers` and `vocabulary: match` or `translate` start from weights; set `pretrained`")
        if self.vocabulary != "keep" and self.tokenizer is None:
            raise ValueError(f"`vocabulary: {self.vocabulary}` needs `tokenizer`, the new tokenizer's folder")
        return self


class Lora(Schema):
    """Low-rank adapters beside the linear layers of a frozen backbone (arXiv 2106.09685)."""

    rank: PositiveInt = 16
    """Of the added matrices; more learns more and needs more memory."""
    alpha: PositiveFloat = 32.0
    """The update is scaled by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability on the adapters' inputs."""
    targets: Annotated[list[str], Field(min_length=1)] | None = None
    """Ends of the names of linear layers, for example [query, value]; null adapts all."""

    @property
    def scale(self) -> float:
        """What the product of the added matrices is multiplied by."""
        return self.alpha / self.rank


class VisionBackbone(Schema):
    """A Hugging Face vision transformer: ViT, DINOv2, or the vision tower of CLIP or SigLIP."""

    kind: Literal["vision"]
    pretrained: Path | None = None
    """Folder with config.json, preprocessor_config.json and safetensors weights, of the tower or of both; null builds
    the network of `architecture` at random."""
    architecture: dict[str, Any] | None = None
    """Hugging Face configuration for a network from scratch; must name `model_type`, for example vit."""
    head: PositiveInt | None = None
    """As for texts; without it a student needs the teacher's width."""

    @model_validator(mode="after")
    def _one_origin(self) -> "VisionBackbone":
        if (self.pretrained is None) == (self.architecture is None):
            raise ValueError(
                "give either `pretrained` (a folder) or `architecture` (a configuration), not both or none"
            )
        if self.architecture is not None and "model_type" not in self.architecture:
            raise ValueError("`architecture` must name `model_type`, for example vit")
        return self


Backbone = Annotated[TextBackbone | VisionBackbone, Field(discriminator="kind")]
