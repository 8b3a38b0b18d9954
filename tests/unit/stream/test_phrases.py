import re

import pytest
import torch

from optical_scale.batch import PatchBatch, TokenBatch
from optical_scale.errors import StreamError
from optical_scale.records import Box, Caption, CaptionedImage, Phrase
from optical_scale.stream.collate import PairCollator
from optical_scale.stream.phrases import CUT, USED, PhraseCollator

TEXT = "the man and a dog"
MAN, DOG = Phrase("1", "people", 0, 7), Phrase("2", "animals", 12, 17)


def spans(texts, limit=9):
    return [[match.span() for match in re.finditer(r"\S+", text)][:limit] for text in texts]


def image(key, *phrases, text=TEXT, regions=None):
    boxes = {"1": (Box(0, 0, 60, 60),), "2": (Box(60, 30, 120, 60),)} if regions is None else regions
    captions = (Caption("en", text, phrases), Caption("en", "a dog", (Phrase("2", "animals", 2, 5),)))
    return CaptionedImage(key, b"x", "jpg", 120, 60, captions, boxes)


IMAGES = [image("a", MAN, DOG), image("b"), image("c", DOG)]


def found(images, side=2, token_spans=spans):
    return PhraseCollator(token_spans, side)(images, [one.captions[0] for one in images])


def test_phrases_of_all_rows_one_after_the_other():
    regions = found(IMAGES)
    assert regions.rows_F.tolist() == [0, 0, 2]
    assert [row.nonzero().flatten().tolist() for row in regions.tokens_FN] == [[0, 1], [3, 4], [3, 4]]
    assert regions.patches_FM.tolist() == [[1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 1]]


def test_nothing_for_captions_without_phrases():
    assert found([IMAGES[1]]) is None
    assert found([image("a", MAN, regions={})]) is None


def test_phrases_beyond_the_token_limit_are_left_out_and_counted():
    def cut(texts):
        return spans(texts, 3)

    assert found(IMAGES, token_spans=cut).rows_F.tolist() == [0]
    counted = PhraseCollator(cut, 2).count(IMAGES, [one.captions[0] for one in IMAGES])
    assert counted == {USED: 1, CUT: 2}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (image("k", Phrase("1", "x", 3, 3)), "image k: a phrase from character 3 to 3"),
        (image("k", MAN, regions={"1": (Box(0, 0, 60, 99),)}), "image k: the box"),
    ],
)
def test_what_cannot_be_meant_is_refused(bad, message):
    with pytest.raises(StreamError, match=message):
        found([IMAGES[0], bad])


def test_the_collator_takes_the_phrases_of_the_caption_of_the_epoch():
    def tokenize(texts):
        ids_BT = torch.ones(len(texts), 5, dtype=torch.long)
        return TokenBatch(ids_BT, ids_BT.bool(), ids_BT.bool())

    def transform(images):
        return PatchBatch(torch.zeros(len(images), 3, 4, 4))

    collate = PairCollator(tokenize, transform_images=transform, phrases=PhraseCollator(spans, 2))
    first, second = collate(IMAGES, [0, 0, 0]).regions, collate(IMAGES, [1, 1, 1]).regions
    assert first.rows_F.tolist() == [0, 0, 2]
    assert second.rows_F.tolist() == [0, 1, 2]
    assert second.tokens_FN.tolist() == [[False, True]] * 3
    assert collate.blank().regions is None
    without = PairCollator(tokenize, transform_images=transform)(IMAGES)
    assert without.regions is None
    assert collate(IMAGES).nbytes == without.nbytes + first.nbytes
    assert collate(IMAGES).to("cpu").regions.patches_FM.equal(first.patches_FM)
