"""Encoded images to normalised pixels."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from optical_scale.batch import PatchBatch
from optical_scale.errors import ConfigError, CorpusError
from optical_scale.runtime.files import write_json

Image.MAX_IMAGE_PIXELS = 64_000_000

_FILE = "preprocessor_config.json"
_PROCESSORS = ("ViTImageProcessor", "CLIPImageProcessor", "SiglipImageProcessor", "BitImageProcessor")


@dataclass(frozen=True, slots=True)
class Pixels:
    """What is done to a decoded image, in this order; the defaults are those of networks from scratch.

    Attributes:
        resize: pixels of a side of the square that the image is stretched to.
        shortest: instead, the image keeps its shape, and ``resize`` is its shorter side.
        crop: side of the square that is then cut out of the middle, black where the image is smaller; None cuts none.
        resample: PIL's number of the interpolation.
        scale: values from 0 to 255 are multiplied by it.
        mean: subtracted, for red, green and blue.
        std: divided by, for each.
        processor: transformers' name for this sequence.
    """

    resize: int
    shortest: bool = False
    crop: int | None = None
    resample: int = int(Image.Resampling.BICUBIC)
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    processor: str = _PROCESSORS[0]

    @property
    def size(self) -> int:
        """Pixels of a side of the result."""
        return self.crop or self.resize

    @classmethod
    def read(cls, folder: Path) -> "Pixels":
        """What ``preprocessor_config.json`` asks for; transformers reads it, and knows every way to write it.

        Raises:
            ConfigError: there is none, its class does other things, or images do not end as squares of one size.
        """
        from transformers import AutoImageProcessor

        path = folder / _FILE
        if not path.is_file():
            raise ConfigError(
                f"backbone.pretrained: {folder} has no {_FILE}, which says how the network wants its images; copy it "
                "from where the weights come from"
            )
        try:
            read: Any = AutoImageProcessor.from_pretrained(folder, backend="pil", local_files_only=True)
        except (OSError, ValueError, TypeError, ImportError) as error:
            raise ConfigError(f"backbone.pretrained: {path} cannot be read: {error}") from error
        found: dict[str, Any] = read.to_dict()
        if found["image_processor_type"] not in _PROCESSORS or found.get("do_pad"):
            raise ConfigError(
                f"backbone.pretrained: {path} prepares images by {found['image_processor_type']}"
                f"{' with do_pad' if found.get('do_pad') else ''}; known are {', '.join(_PROCESSORS)} without do_pad"
            )
        size = {name: pixels for name, pixels in found["size"].items() if pixels} if found["do_resize"] else {}
        crop = found["crop_size"] if found.get("do_center_crop") else {}
        shortest = set(size) == {"shortest_edge"}
        sides = set(size.values()), set(crop.values())
        if not size or len(sides[0]) != 1 or len(sides[1]) > 1 or (shortest and not crop) or "longest_edge" in size:
            raise ConfigError(
                f"backbone.pretrained: {path} resizes images to {size or 'nothing'} and crops them to "
                f"{crop or 'nothing'}; expected squares of one size in the end"
            )
        return cls(
            resize=sides[0].pop(),
            shortest=shortest,
            crop=sides[1].pop() if crop else None,
            resample=int(found["resample"]),
            scale=float(found["rescale_factor"]) if found["do_rescale"] else 1.0,
            mean=tuple(found["image_mean"]) if found["do_normalize"] else (0.0,) * 3,
            std=tuple(found["image_std"]) if found["do_normalize"] else (1.0,) * 3,
            processor=found["image_processor_type"],
        )

    def frame(self, image: Image.Image) -> Image.Image:
        """The part of a decoded image that is seen, in RGB; what is transparent becomes white, as in transformers."""
        if "A" in image.getbands() or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert("RGB")
        wide, high = self.resize, self.resize
        if self.shortest:
            short = min(image.size)
            wide, high = (int(self.resize * side / short) for side in image.size)
        image = image.resize((wide, high), Image.Resampling(self.resample))
        if self.crop is not None:
            left, top = (wide - self.crop) // 2, (high - self.crop) // 2
            image = image.crop((left, top, left + self.crop, top + self.crop))
        return image

    def of(self, image: Image.Image) -> NDArray[np.float32]:
        """Pixels (3, size, size) of a decoded image."""
        factor = np.array([self.scale / std for std in self.std], dtype=np.float32)
        shift = np.array([mean / std for mean, std in zip(self.mean, self.std, strict=True)], dtype=np.float32)
        return (np.asarray(self.frame(image), dtype=np.float32) * factor - shift).transpose(2, 0, 1)

    def write(self, folder: Path) -> None:
        """Write ``preprocessor_config.json`` for transformers' image processors."""
        size = {"shortest_edge": self.resize} if self.shortest else {"height": self.resize, "width": self.resize}
        values: dict[str, Any] = {
            "image_processor_type": self.processor,
            "do_resize": True,
            "size": size,
            "resample": self.resample,
            "do_center_crop": self.crop is not None,
            "do_rescale": True,
            "rescale_factor": self.scale,
            "do_normalize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
            "do_convert_rgb": True,
        }
        if self.crop is not None:
            values["crop_size"] = {"height": self.crop, "width": self.crop}
        write_json(folder / _FILE, values)


class ImageTransform:
    """Decode images and make pixels of them.

    Args:
        pixels: what is done to an image.
        patch: pixels of a side of a patch.
        prefix: vectors that the tower puts before those of patches.

    Attributes:
        side: patches of a side.
        max_tokens: vectors that the tower makes of an image, for batches by cost.
    """

    def __init__(self, pixels: Pixels, patch: int, prefix: int = 1) -> None:
        self.pixels = pixels
        self.side = pixels.size // patch
        self.max_tokens = self.side**2 + prefix

    def digest(self) -> str:
        """Changes whenever the number of tokens could."""
        return f"image {self.max_tokens}"

    def __call__(self, images: Sequence[bytes]) -> PatchBatch:
        """B encoded images to ``pixels_BCHW``.

        Raises:
            CorpusError: bytes that are no image.
        """
        return PatchBatch(torch.from_numpy(np.stack([self._decode(image) for image in images])))

    def _decode(self, encoded: bytes) -> NDArray[np.float32]:
        try:
            with Image.open(io.BytesIO(encoded)) as image:
                return self.pixels.of(image)
        except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
            raise CorpusError(
                f"an image of {len(encoded)} bytes cannot be decoded: {error}; convert the corpus again"
            ) from error

    def save(self, folder: Path) -> None:
        """Write ``preprocessor_config.json`` for transformers' image processors."""
        self.pixels.write(folder)
