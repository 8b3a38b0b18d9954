"""Phrases of captions and their boxes become tensors, for objectives that learn from them."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch

from optical_scale.batch import PhraseRegions
from optical_scale.errors import StreamError
from optical_scale.records import Caption, CaptionedImage
from optical_scale.regions import TokenSpans, boxed_phrases, boxes_in_patches, coverage, fault, tokens_of

USED, CUT = "used", "left out, beyond the token limit"


class PhraseCollator:
    """Finds the tokens of every phrase that has boxes, and how much of each patch the boxes cover.

    Args:
        token_spans: of the tokenizer that reads the captions.
        side: patches of an image's side.
    """

    def __init__(self, token_spans: TokenSpans, side: int) -> None:
        self.token_spans = token_spans
        self.side = side

    def __call__(self, images: Sequence[CaptionedImage], captions: Sequence[Caption]) -> PhraseRegions | None:
        """The phrases of row after row; None if there is none.

        Raises:
            StreamError: a phrase is empty or outside its caption, or a box outside its image.
        """
        rows, tokens, patches = [], [], []
        for row, (image, caption) in enumerate(zip(images, captions, strict=True)):
            for own, covered in self._phrases(image, caption, Counter()):
                rows.append(row)
                tokens.append(own)
                patches.append(covered)
        if not rows:
            return None
        tokens_FN = np.zeros((len(rows), 1 + max(own[-1] for own in tokens)), dtype=np.bool_)
        for number, own in enumerate(tokens):
            tokens_FN[number, own] = True
        return PhraseRegions(torch.tensor(rows), torch.from_numpy(tokens_FN), torch.from_numpy(np.stack(patches)))

    def count(self, images: Sequence[CaptionedImage], captions: Sequence[Caption]) -> Counter[str]:
        """How many phrases can be used, and how many are left out for which reason.

        Raises:
            StreamError: as when called.
        """
        counted: Counter[str] = Counter()
        for image, caption in zip(images, captions, strict=True):
            counted[USED] += len(self._phrases(image, caption, counted))
        return counted

    def _phrases(
        self, image: CaptionedImage, caption: Caption, counted: Counter[str]
    ) -> list[tuple[list[int], np.ndarray]]:
        boxed, left_out = boxed_phrases(image, caption)
        counted += left_out
        if not boxed:
            return []
        (spans,) = self.token_spans([caption.text])
        found = []
        for phrase, boxes in boxed:
            if problem := fault(image, caption, phrase, boxes):
                raise StreamError(problem)
            if own := tokens_of(phrase, caption.text, spans):
                boxes_K4 = boxes_in_patches(boxes, image.width, image.height, self.side)
                found.append((own, coverage(boxes_K4, self.side)))
            else:
                counted[CUT] += 1
        return found
