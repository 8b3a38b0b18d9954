"""Small copies of images, written into a page as data URIs."""

import base64
import io
import warnings

from PIL import Image

from optical_scale.corpora.pictures import MAX_PIXELS

_SIDE = 192
_QUALITY = 70


def thumbnail(image: bytes) -> str | None:
    """A JPEG of at most 192 by 192 pixels as a data URI; None if the image cannot be decoded or is too large."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(image), formats=("JPEG", "PNG")) as opened:
                if opened.width * opened.height > MAX_PIXELS:
                    return None
                opened.draft("RGB", (2 * _SIDE, 2 * _SIDE))  # decodes no finer than the reduction can use
                small = opened.convert("RGB")
        small.thumbnail((_SIDE, _SIDE))
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=_QUALITY)
    except Exception:  # decoders raise almost any class on damaged bytes
        return None
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
