"""Encoded images to normalised pixels."""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from optical_scale.batch import PatchBatch
from optical_scale.errors import CorpusError
from optical_scale.runtime.files import write_json

Image.MAX_IMAGE_PIXELS = 64_000_000


class ImageTransform:
    """Decode, convert to RGB, resize to a square with bicubic interpolation, scale to [-1, 1].

    These are the settings of transformers' ViT image processor with mean and deviation 0.5; :meth:`save` writes them in
    its format, so that other libraries prepare images the same way.

    Args:
        size: pixels of a side.
        max_tokens: tokens that the vision tower makes of an image, for batches by cost.
    """

    def __init__(self, size: int, max_tokens: int = 1) -> None:
        self.size = size
        self.max_tokens = max_tokens

    @property
    def side(self) -> int:
        """Patches of a side."""
        return math.isqrt(self.max_tokens - 1)

    def digest(self) -> str:
        """Changes whenever the number of tokens could."""
        return f"image {self.max_tokens}"

    def __call__(self, images: Sequence[bytes]) -> PatchBatch:
        """B encoded images to ``pixels_BCHW``.

        Raises:
            CorpusError: bytes that are no image.
        """
        return PatchBatch(torch.from_numpy(np.stack([self._pixels(image) for image in images])))

    def _pixels(self, encoded: bytes) -> np.ndarray[Any, np.dtype[np.float32]]:
        try:
            with Image.open(io.BytesIO(encoded)) as image:
                square = image.convert("RGB").resize((self.size, self.size), Image.Resampling.BICUBIC)
        except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
            raise CorpusError(
                f"an image of {len(encoded)} bytes cannot be decoded: {error}; convert the corpus again"
            ) from error
        return (np.asarray(square, dtype=np.float32) / 127.5 - 1.0).transpose(2, 0, 1)

    def save(self, folder: Path) -> None:
        """Write ``preprocessor_config.json`` for transformers' image processors."""
        write_json(
            folder / "preprocessor_config.json",
            {
                "image_processor_type": "ViTImageProcessor",
                "do_resize": True,
                "size": {"height": self.size, "width": self.size},
                "resample": int(Image.Resampling.BICUBIC),
                "do_rescale": True,
                "rescale_factor": 1 / 255,
                "do_normalize": True,
                "image_mean": [0.5, 0.5, 0.5],
                "image_std": [0.5, 0.5, 0.5],
            },
        )
