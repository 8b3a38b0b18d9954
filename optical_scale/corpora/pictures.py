"""Image files as they go into shards: checked, turned upright, in plain 8-bit colours, small if wished.

A file that already is a still, upright JPEG or PNG in 8-bit RGB or grey, and small enough, keeps its bytes. Any other
becomes a JPEG: the first frame of GIF, animated PNG or WebP, the first picture of an MPO; CMYK and palettes converted;
transparency laid on white; the upper 8 of 16 bits.
"""

import io
import warnings
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from optical_scale.errors import CorpusError, ImageError

SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".webp")
"""Of the files that are looked for where a corpus names an image without one."""

MAX_PIXELS = 64_000_000
"""Default limit, that of training too; a small file can hold far more and exhaust the memory that decodes it."""

_FORMATS = ("JPEG", "PNG", "GIF", "WEBP")
"""What is looked for; an MPO is found as a JPEG."""
_EXTENSIONS = {"JPEG": "jpg", "PNG": "png"}
_ORIENTATION = 0x0112
_LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class PictureRule:
    """How images are stored.

    Attributes:
        short_side: pixels to which the shorter side is reduced, never enlarged; None keeps the size.
        quality: of JPEG, where an image has to be written anew; 1 to 95.
        max_pixels: larger images are refused.
    """

    short_side: int | None = None
    quality: int = 95
    max_pixels: int = MAX_PIXELS


UNCHANGED = PictureRule()
"""Images keep their size."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An encoded image: bytes, ``jpg`` or ``png``, and its size in pixels."""

    content: bytes
    extension: str
    width: int
    height: int


def read_picture(path: Path, rule: PictureRule) -> Picture:
    """Decode an image once, so that damage is found now, and prepare it.

    Raises:
        ImageError: the file cannot be read, has another format, is damaged or has too many pixels.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror}); check the folder", "missing_image") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
                if image.width * image.height > rule.max_pixels:
                    raise Image.DecompressionBombError(f"{image.width}x{image.height} pixels")
                return _prepare(image, content, rule)
    except UnidentifiedImageError:
        raise ImageError(
            f"{path}: starts with {content[:8]!r}, which is none of {', '.join(_FORMATS)}; convert it, or remove it",
            "unknown_image_format",
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(
            f"{path}: too large an image ({error}); expected at most {rule.max_pixels:,} pixels. Reduce it, or raise "
            "`pictures.max_pixels` if it is to be trusted",
            "image_too_large",
        ) from None
    except Exception as error:  # decoders raise almost any class on damaged bytes
        raise ImageError(
            f"{path}: the image is damaged ({error or type(error).__name__}); fetch it again", "damaged_image"
        ) from None


def _prepare(image: Image.Image, content: bytes, rule: PictureRule) -> Picture:
    width, height = image.size
    turned = image.getexif().get(_ORIENTATION, 1) in range(2, 9)
    scale = min(1.0, (rule.short_side or min(image.size)) / min(image.size))
    plain = image.format in _EXTENSIONS and image.mode in ("RGB", "L") and getattr(image, "n_frames", 1) == 1
    if plain and not turned and scale == 1.0 and "transparency" not in image.info:
        # Reads all bytes, skips most arithmetic.
        image.draft("RGB", (max(width // 8, 1), max(height // 8, 1)))
        image.load()
        return Picture(content, _EXTENSIONS[image.format or ""], width, height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if scale < 1.0 and image.mode == "RGB":
        image.draft("RGB", (2 * size[0], 2 * size[1]))  # decodes no finer than the filter below can use
    image = _rgb(image)
    if scale < 1.0:
        image = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    if turned:
        image = ImageOps.exif_transpose(image)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=rule.quality, exif=b"")
    return Picture(buffer.getvalue(), "jpg", *image.size)


def _rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB, with the original's EXIF data."""
    exif = image.getexif()
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.int64).clip(0, 65535) >> 8
        plain = Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    elif image.has_transparency_data:
        layer = image.convert("RGBA")
        plain = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    else:
        plain = image.convert("RGB")
    plain.info["exif"] = exif.tobytes()
    return plain


def find_image(folder: Path, name: str) -> Path | None:
    """The file of an image that a corpus calls ``name``, with or without suffix; None if there is none.

    COCO's images may also lie in the folders that their names contain: ``train2014/COCO_train2014_….jpg``.
    """
    stem, suffix = name[: -len(PurePosixPath(name).suffix) or None], PurePosixPath(name).suffix.lower()
    stem = stem if suffix in SUFFIXES else name
    parts = PurePosixPath(name).name.split("_")
    for start in (folder, folder / parts[1]) if parts[0] == "COCO" and len(parts) == 3 else (folder,):
        for candidate in (name, *(f"{stem}{other}" for other in SUFFIXES)):
            if (start / candidate).is_file():
                return start / candidate
    return None


def check_image_name(name: str, where: str) -> str:
    """Return ``name`` if it is a file name, or a path downwards, that stays in a folder.

    Raises:
        CorpusError: it would lead elsewhere.
    """
    parts = name.split("/")
    unsafe = any(part in ("", ".", "..") or part != part.strip() for part in parts) or not name.isprintable()
    if unsafe or "\\" in name or ":" in name or len(name) > _LONGEST_NAME:
        raise CorpusError(
            f"{where}: {name[:80]!r} is no safe name of an image; expected for example `1000092795.jpg`, inside the "
            "folder of images"
        )
    return name
