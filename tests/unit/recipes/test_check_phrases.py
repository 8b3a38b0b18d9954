"""Phrases with boxes are looked for before training starts."""

import logging
import re

import pytest
import torch

from optical_scale.batch import PatchBatch
from optical_scale.errors import ConfigError, StreamError
from optical_scale.recipes.build_stream import check_phrases
from optical_scale.records import Box, Caption, CaptionedImage, Phrase
from optical_scale.runtime.world import World
from optical_scale.stream.collate import PairCollator
from optical_scale.stream.phrases import PhraseCollator
from tests.unit.stream.support import characters

DOG = Phrase("1", "animals", 2, 5)


def image(number, *phrases, box=None):
    regions = {"1": (box or Box(0, 0, 9, 9),)}
    return CaptionedImage(f"i{number}", b"", "jpg", 20, 20, (Caption("en", "a dog", phrases),), regions)


class Images(list):
    name, language = "images", "en"


def check(*records, tolerant=False, phrases=True):
    def spans(texts):
        return [[match.span() for match in re.finditer(r"\S+", text)] for text in texts]

    collate = PairCollator(
        characters,
        transform_images=lambda images: PatchBatch(torch.zeros(len(images), 3, 2, 2)),
        phrases=PhraseCollator(spans, 2) if phrases else None,
    )
    check_phrases([Images(records)], collate, tolerant=tolerant, world=World(), device="cpu")


def test_phrases_are_counted(caplog):
    caplog.set_level(logging.INFO)
    check(image(0), image(1, DOG), image(2, DOG, Phrase("0", "other", 0, 1)))
    assert "phrases in the first captions of 3 images: 2 used, 1 left out, not visible" in caplog.text


def test_a_corpus_without_phrases_is_refused_before_the_first_step():
    with pytest.raises(ConfigError, match=r"none of 2 images has one .* \(phrases: 1 left out, no box\)"):
        check(image(0), image(1, Phrase("9", "x", 0, 1)))
    check(image(0), phrases=False)


def test_a_phrase_that_cannot_be_meant_is_named_or_counted(caplog):
    caplog.set_level(logging.INFO)
    bad = image(1, DOG, box=Box(0, 0, 40, 9))
    with pytest.raises(StreamError, match="image i1: the box"):
        check(image(0, DOG), bad)
    check(image(0, DOG), bad, tolerant=True)
    assert "1 used, 1 in images that cannot be used" in caplog.text
