import re

import numpy as np
import pytest

from optical_scale.records import Box, Caption, CaptionedImage, Phrase
from optical_scale.regions import NO_BOX, NOT_VISIBLE, boxed_phrases, boxes_in_patches, coverage, fault, tokens_of

TEXT = "the man and a dog"
PHRASES = (Phrase("1", "people", 0, 7), Phrase("2", "animals", 12, 17), Phrase("0", "other", 4, 7))
CAPTION = Caption("en", TEXT, PHRASES)


def image(**regions):
    return CaptionedImage("k", b"", "jpg", 120, 60, (CAPTION,), {key[1:]: value for key, value in regions.items()})


def test_boxes_are_scaled_along_both_axes():
    found = boxes_in_patches([Box(50, 0, 100, 30)], width=100, height=60, side=4)
    assert found.tolist() == [[2, 0, 4, 2]]


def test_coverage_is_the_covered_part_of_each_patch():
    half = coverage(np.array([[0.5, 0.0, 2.0, 1.0]]), 3).reshape(3, 3)
    assert half.tolist() == [[0.5, 1.0, 0.0], [0.0] * 3, [0.0] * 3]
    small = coverage(np.array([[1.25, 1.25, 1.5, 1.75]]), 3).reshape(3, 3)
    assert small[1, 1] == pytest.approx(1 / 8)
    assert small.sum() == pytest.approx(1 / 8)


def test_coverage_adds_boxes_up_to_the_whole_patch():
    apart = coverage(np.array([[0, 0, 0.5, 1.0], [0.5, 0, 0.75, 1]]), 2)
    assert apart[0] == pytest.approx(0.75)
    assert coverage(np.array([[0, 0, 1.0, 1], [0, 0, 1, 1]]), 2).tolist() == [1, 0, 0, 0]


def test_coverage_ends_at_the_picture():
    assert coverage(np.array([[-1.0, -1.0, 5.0, 5.0]]), 2).tolist() == [1, 1, 1, 1]


def test_phrases_without_boxes_are_counted_by_reason():
    boxed, counted = boxed_phrases(image(_1=(Box(0, 0, 1, 1),)), CAPTION)
    assert boxed == [(PHRASES[0], (Box(0, 0, 1, 1),))]
    assert counted == {NO_BOX: 1, NOT_VISIBLE: 1}


def test_tokens_share_a_character_with_the_phrase():
    words = [match.span() for match in re.finditer(r"\S+", TEXT)]
    assert [tokens_of(phrase, TEXT, words) for phrase in PHRASES] == [[0, 1], [3, 4], [1]]


def test_the_blank_before_a_word_does_not_count():
    pieces = [(0, 3), (3, 7), (7, 11), (11, 13), (13, 17)]
    assert tokens_of(PHRASES[2], TEXT, pieces) == [1]
    assert tokens_of(Phrase("1", "other", 3, 4), TEXT, pieces) == []


def test_no_token_beyond_the_limit():
    assert tokens_of(PHRASES[1], TEXT, [(0, 3), (3, 7)]) == []


@pytest.mark.parametrize(
    ("phrase", "box", "message"),
    [
        (Phrase("1", "x", 3, 3), Box(0, 0, 9, 9), "from character 3 to 3 is empty or outside its caption of 17"),
        (Phrase("1", "x", 3, 4), Box(0, 0, 9, 9), "from character 3 to 4 is empty"),
        (Phrase("1", "x", 3, 18), Box(0, 0, 9, 9), "from character 3 to 18"),
        (Phrase("1", "x", 0, 3), Box(4, 0, 4, 9), r"box \(4, 0, 4, 9\) of entity 1 is empty or outside"),
        (Phrase("1", "x", 0, 3), Box(0, 0, 9, 62), "outside the image of 120x60"),
    ],
)
def test_what_cannot_be_meant_is_named(phrase, box, message):
    assert re.search(message, fault(image(), CAPTION, phrase, [box]))
    assert fault(image(), CAPTION, PHRASES[0], [Box(0, 0, 120.5, 60)]) is None
