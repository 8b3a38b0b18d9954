"""Tiny folders of CLIP, SigLIP, DINOv2 and ViT as transformers would write them, with random weights."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    CLIPConfig,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    PreTrainedModel,
    SiglipConfig,
    SiglipModel,
    ViTConfig,
    ViTModel,
)

from optical_scale.backbones.tokenizers import TextTokenizer
from optical_scale.runtime.files import write_json
from tests.support.corpus import write_tokenizer

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
POSITIONS = 16
CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
_CROPPED = {"size": {"shortest_edge": 20}, "crop_size": {"height": 16, "width": 16}, "do_center_crop": True}
_SQUARE = {"size": {"height": 16, "width": 16}}
PROCESSORS: dict[str, dict[str, Any]] = {
    "clip": {"image_processor_type": "CLIPImageProcessor", "image_mean": CLIP_MEAN, "image_std": CLIP_STD, **_CROPPED},
    "siglip": {"image_processor_type": "SiglipImageProcessor", **_SQUARE},
    "dinov2": {"image_processor_type": "BitImageProcessor", "image_mean": [0.4, 0.5, 0.6], **_CROPPED},
    "dinov2_with_registers": {"image_processor_type": "BitImageProcessor", **_CROPPED},
    "vit": {"image_processor_type": "ViTImageProcessor", "resample": 2, **_SQUARE},
}
TOWERS = tuple(PROCESSORS)


def write_tower(folder: Path, name: str) -> PreTrainedModel:
    """Write a folder with weights, preprocessor and, for models of two towers, a tokenizer; returns the whole model."""
    torch.manual_seed(5)
    pieces = write_tokenizer(folder / "tokenizer") if name in ("clip", "siglip") else 0
    model = _model(name, pieces).eval()
    model.save_pretrained(folder)
    write_json(folder / "preprocessor_config.json", PROCESSORS[name])
    if pieces:
        TextTokenizer.load(folder / "tokenizer", POSITIONS).save(folder)
    return model


def _model(name: str, pieces: int) -> PreTrainedModel:
    pixels = {"image_size": 16, "patch_size": 8, "projection_dim": 24}
    text = SIZES | {"vocab_size": pieces, "max_position_embeddings": POSITIONS, "projection_dim": 24}
    text |= {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
    match name:
        case "clip":
            return CLIPModel(CLIPConfig(text_config=text, vision_config=SIZES | pixels, projection_dim=24))
        case "siglip":
            return SiglipModel(SiglipConfig(text_config=text, vision_config=SIZES | pixels))
        case "dinov2":
            return Dinov2Model(Dinov2Config(**SIZES, image_size=24, patch_size=8, mlp_ratio=2))
        case "dinov2_with_registers":
            sizes = {**SIZES, "image_size": 24, "patch_size": 8, "mlp_ratio": 2}
            return Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**sizes, num_register_tokens=3))
        case "vit":
            return ViTModel(ViTConfig(**SIZES, **pixels), add_pooling_layer=False)
    raise AssertionError(name)


def pictures(count: int = 3) -> list[bytes]:
    """Encoded images of several shapes and modes."""
    found, random = [], np.random.default_rng(0)
    for number in range(count):
        mode = ("RGB", "RGBA", "L")[number % 3]
        shape = (34 - 9 * (number % 3), 21 + 13 * (number % 2), len(mode))
        file = io.BytesIO()
        Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8).squeeze()).save(file, "PNG")
        found.append(file.getvalue())
    return found


def prepared(folder: Path, images: list[bytes]) -> torch.Tensor:
    """What transformers' own preparation of ``folder`` makes of images."""
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    opened = [Image.open(io.BytesIO(image)) for image in images]
    pixels_BCHW: torch.Tensor = processor(opened, do_convert_rgb=True, return_tensors="pt")["pixel_values"]
    return pixels_BCHW
