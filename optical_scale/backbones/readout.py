"""What a network's vectors stand for: which belong to parts of the input, and which to all of it.

Towers that were trained to sum an input up in one vector keep doing so, and this vector is the dense embedding: the
class token of CLIP and DINOv2, the last token of CLIP's and SigLIP's texts, and what SigLIP's attention pooling gives
for images, which is put before the patches where others have a class token. All other networks are averaged.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

VISION = ("vit", "clip_vision_model", "siglip_vision_model", "dinov2", "dinov2_with_registers")
"""Networks that are known to give a vector for each patch of a square grid, row by row, behind a few others."""
TWO_TOWERS = ("clip", "siglip")
"""Networks of which one tower is taken."""

Pooled = Literal["mean", "first", "last"]


@dataclass(frozen=True, slots=True)
class Readout:
    """Of one network.

    Attributes:
        prefix: vectors before the first patch, of no part of the image: class token, registers.
        pooled: where the dense embedding is: the mean over all vectors, the first one, or that of the last token.
    """

    prefix: int = 0
    pooled: Pooled = "mean"


TEXT = Readout()
"""Of texts, unless their network was trained otherwise."""


def readout_of(config: Any) -> Readout:
    """How to read the network that a Hugging Face configuration describes."""
    match config.model_type:
        case "vit":
            return Readout(prefix=1)
        case "clip_vision_model" | "dinov2":
            return Readout(prefix=1, pooled="first")
        case "dinov2_with_registers":
            return Readout(prefix=1 + int(config.num_register_tokens), pooled="first")
        case "siglip_vision_model":
            return Readout(prefix=1, pooled="first") if _pools(config) else Readout()
        case "clip_text_model" | "siglip_text_model":
            return Readout(pooled="last")
        case _:
            return TEXT


def pooled_over(attention_BT: Tensor, readout: Readout) -> Tensor:
    """Bool (B, T): the vectors whose mean is the dense embedding.

    Args:
        attention_BT: bool, all real tokens; padding follows them.
        readout: of the network.
    """
    if readout.pooled == "mean":
        return attention_BT
    at_T = torch.arange(attention_BT.shape[1], device=attention_BT.device)
    if readout.pooled == "first":
        return (at_T == 0).expand_as(attention_BT)
    return at_T == attention_BT.sum(1, keepdim=True) - 1


def token_vectors(backbone: nn.Module, **inputs: Tensor) -> Tensor:
    """Vectors (B, T, D) of a backbone, in the space of its dense embedding as far as it knows one without a head."""
    return vectors_of_layers(backbone, (), **inputs)[0]


def vectors_of_layers(backbone: nn.Module, layers: Sequence[int], **inputs: Tensor) -> list[Tensor]:
    """What :func:`token_vectors` gives, then the vectors of inner layers as they are; 0 are the embeddings."""
    config: Any = backbone.config
    found = backbone(**inputs, output_hidden_states=bool(layers))
    inner = [found.hidden_states[number] for number in layers]
    x_BTD: Tensor = found.last_hidden_state
    match config.model_type:
        case "clip_vision_model":  # transformers normalises the class token only; the projection behind wants no other
            x_BTD = backbone.post_layernorm(x_BTD)  # type: ignore[operator]
        case "siglip_vision_model" if _pools(config):
            first_B1D = found.pooler_output.unsqueeze(1)
            x_BTD, *inner = (torch.cat([first_B1D, states_BTD], 1) for states_BTD in (x_BTD, *inner))
        case "siglip_text_model":
            x_BTD = backbone.head(x_BTD)  # type: ignore[operator]
    return [x_BTD, *inner]


def width_of(config: Any) -> int:
    """D of :func:`token_vectors`."""
    return int(config.projection_size if config.model_type == "siglip_text_model" else config.hidden_size)


def tower_config(config: PretrainedConfig, kind: Literal["text", "vision"]) -> PretrainedConfig:
    """The part of ``config`` that describes the tower of one kind; all of it if that is no model of two towers."""
    tower: PretrainedConfig = getattr(config, f"{kind}_config") if config.model_type in TWO_TOWERS else config
    return tower


def _pools(config: Any) -> bool:
    return bool(getattr(config, "vision_use_head", True))
