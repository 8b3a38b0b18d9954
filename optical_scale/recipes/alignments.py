"""Example transport plans for the viewer of a report, from the pairs that were evaluated."""

import base64
import io
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from PIL import Image
from torch import Tensor

from optical_scale.backbones.tokenizers import TextTokenizer
from optical_scale.backbones.vision import ImageTransform, Pixels
from optical_scale.batch import TokenStates
from optical_scale.config.evaluations import BitextRetrieval, EntityRetrieval, Grounding, ImageText
from optical_scale.config.run import EvaluateConfig
from optical_scale.evaluation.schema import Alignment, PictureAlignment
from optical_scale.recipes.build_evaluations import bitext, captioned_images
from optical_scale.transport import solve

Encode = Callable[[Any], TokenStates]
_PICTURE_SIDE = 224
_MIDDLING = range(5, 15)
"""Numbers of tokens that make a drawing worth looking at."""


def sentence_alignments(
    config: EvaluateConfig,
    teacher: Encode,
    teacher_tokens: TextTokenizer,
    student: Encode,
    student_tokens: TextTokenizer,
) -> Iterator[Alignment]:
    """Plans of the first ``config.alignments`` pairs of middling length in each language of the first bitext."""
    evaluation = next((item for item in config.evaluation if isinstance(item, BitextRetrieval)), None)
    for language, pairs in bitext(evaluation).items() if evaluation and config.alignments else ():
        middling = (pair for pair in pairs if len(student_tokens.pieces(pair.target)) in _MIDDLING)
        for pair in list(islice(middling, config.alignments)) or pairs[:1]:
            source, target = teacher([pair.source]), student([pair.target])
            yield Alignment(
                language=language,
                source_tokens=tuple(teacher_tokens.pieces(pair.source)),
                target_tokens=tuple(student_tokens.pieces(pair.target)),
                plan=_rows(_plan(source, target, config.epsilon)),
            )


def picture_alignments(
    config: EvaluateConfig,
    student: Encode,
    student_tokens: TextTokenizer,
    images: Encode | None,
    transform: ImageTransform | None,
) -> Iterator[PictureAlignment]:
    """Plans between captions and patches of ``config.alignments`` images per language of the first image evaluation."""
    evaluation = next(
        (item for item in config.evaluation if isinstance(item, ImageText | Grounding | EntityRetrieval)), None
    )
    if evaluation is None or images is None or transform is None or not config.alignments:
        return
    records = captioned_images(evaluation)
    languages = evaluation.languages or sorted({c.language for record in records for c in record.captions})
    for language in languages:
        # One caption of an image is enough.
        captions = ((record, [c for c in record.captions if c.language == language][:1]) for record in records)
        for record, caption in islice(((record, own[0]) for record, own in captions if own), config.alignments):
            plan_NM = _plan(student([caption.text]), images([record.image]), config.epsilon)
            yield PictureAlignment(
                language=language,
                tokens=tuple(student_tokens.pieces(caption.text)),
                picture=_small(record.image, transform.pixels),
                rows=transform.side,
                columns=transform.side,
                plan=_rows(plan_NM),
            )


def _plan(source: TokenStates, target: TokenStates, epsilon: float) -> Tensor:
    """The plan of a single pair over the tokens that take part, (N, M)."""
    solved = solve(source.x_BTD, target.x_BTD, source.mask_BT, target.mask_BT, epsilon=epsilon)
    return solved.plan()[0][source.mask_BT[0]][:, target.mask_BT[0]]


def _rows(plan_NM: Tensor) -> tuple[tuple[float, ...], ...]:
    """Masses to four digits, which is more than a drawing shows."""
    return tuple(tuple(float(f"{mass:.4g}") for mass in row) for row in plan_NM.tolist())


def _small(encoded: bytes, pixels: Pixels) -> str:
    """What is seen of an image as a ``data:`` address, at most 224 pixels long, and not stretched."""
    with Image.open(io.BytesIO(encoded)) as image:
        small = image.convert("RGB") if pixels.crop is None else pixels.frame(image)
    small.thumbnail((_PICTURE_SIDE, _PICTURE_SIDE))
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
