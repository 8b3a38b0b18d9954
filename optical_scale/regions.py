"""Phrases of a caption as tokens, and what they name in the picture as patches; training and evaluation share it.

The image transform stretches a picture to a square without cutting it, so a box in pixels only has to be scaled along
both axes to lie on the grid of patches.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optical_scale.records import Box, Caption, CaptionedImage, Phrase

TokenSpans = Callable[[Sequence[str]], list[list[tuple[int, int]]]]
"""Texts to the characters of each token that takes part in token-level scores, in order: first, and after the last."""
Boxes = NDArray[np.float64]
"""(K, 4) or (4,): left, top, right, bottom in patches."""
NOT_VISIBLE, NO_BOX = "left out, not visible", "left out, no box"
_EDGE = 1.0
"""Pixels that a box may reach beyond its picture: rounding of sizes."""


def boxed_phrases(image: CaptionedImage, caption: Caption) -> tuple[list[tuple[Phrase, tuple[Box, ...]]], Counter[str]]:
    """The phrases of a caption that have boxes, with them, and how many others there are for which reason."""
    found, counted = [], Counter[str]()
    for phrase in caption.phrases:
        if boxes := image.regions.get(phrase.entity, ()):
            found.append((phrase, tuple(boxes)))
        else:
            counted[NOT_VISIBLE if phrase.entity == "0" else NO_BOX] += 1
    return found, counted


def fault(image: CaptionedImage, caption: Caption, phrase: Phrase, boxes: Sequence[Box]) -> str | None:
    """What cannot be meant, in words that name the image; None if all is well."""
    inside = 0 <= phrase.start < phrase.end <= len(caption.text)
    if not (inside and caption.text[phrase.start : phrase.end].strip()):
        return (
            f"image {image.key}: a phrase from character {phrase.start} to {phrase.end} is empty or outside its "
            f"caption of {len(caption.text)} ({caption.text[:60]!r}); convert the corpus again"
        )
    for box in boxes:
        beyond = max(-box.left, -box.top, box.right - image.width, box.bottom - image.height)
        if not (beyond <= _EDGE and box.left < box.right and box.top < box.bottom):
            return (
                f"image {image.key}: the box ({box.left:g}, {box.top:g}, {box.right:g}, {box.bottom:g}) of "
                f"entity {phrase.entity} is empty or outside the image of {image.width}x{image.height} pixels; "
                "correct or remove it, and convert the corpus again"
            )
    return None


def tokens_of(phrase: Phrase, text: str, spans: Sequence[tuple[int, int]]) -> list[int]:
    """The tokens of ``text`` that share a character with ``phrase``, blanks aside; none beyond the token limit.

    Args:
        phrase: of the text.
        text: a caption.
        spans: the characters of its tokens, one of the values of :data:`TokenSpans`.
    """
    found = []
    for token, (first, last) in enumerate(spans):
        start, end = last - len(text[first:last].lstrip()), first + len(text[first:last].rstrip())
        if max(start, phrase.start) < min(end, phrase.end):
            found.append(token)
    return found


def boxes_in_patches(boxes: Sequence[Box], width: int, height: int, side: int) -> Boxes:
    """Boxes in pixels of a picture of ``width`` x ``height`` as (K, 4) on a grid of ``side`` x ``side`` patches."""
    pixels_K4 = np.array([(box.left, box.top, box.right, box.bottom) for box in boxes], dtype=np.float64)
    return pixels_K4 * side / np.array([width, height, width, height], dtype=np.float64)


def coverage(boxes_K4: Boxes, side: int) -> NDArray[Any]:
    """How much of each patch lies in a box, 0 to 1, shape (S * S,) in float32, row by row from the top.

    Where several boxes share a patch their parts are added, up to 1.
    """
    edges = np.arange(side)
    left, top, right, bottom = (boxes_K4[:, axis, None] for axis in range(4))
    columns_KS = (np.minimum(edges + 1, right) - np.maximum(edges, left)).clip(min=0)
    rows_KS = (np.minimum(edges + 1, bottom) - np.maximum(edges, top)).clip(min=0)
    covered: NDArray[Any] = np.einsum("kr,kc->rc", rows_KS, columns_KS).clip(max=1).ravel().astype(np.float32)
    return covered
