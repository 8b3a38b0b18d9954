import re
from dataclasses import replace

import pytest

from evaluation.encoders import constant_encoder, word_encoder
from optical_scale.errors import EvaluationError
from optical_scale.evaluation.grounding import POINTING, RECALL, WHOLE_PICTURE, evaluate_grounding
from optical_scale.records import Box, Caption, CaptionedImage, Phrase
from optical_scale.runtime.world import World

WIDTH, HEIGHT = 120, 60


def spans(texts):
    return [[match.span() for match in re.finditer(r"\S+", text)] for text in texts]


def caption(text, *phrases, language="en"):
    """Phrases are (words, entity, kind)."""
    found = [(text.index(words), words, entity, kind) for words, entity, kind in phrases]
    return Caption(language, text, tuple(Phrase(e, kind, at, at + len(words)) for at, words, e, kind in found))


def patch(column, row, side=3):
    """The box of one patch in pixels."""
    wide, high = WIDTH / side, HEIGHT / side
    return Box(column * wide, row * high, (column + 1) * wide, (row + 1) * high)


def image(key, words, captions, regions):
    """An "image" whose patches are words, row by row."""
    return CaptionedImage(key, words.encode(), "jpg", WIDTH, HEIGHT, tuple(captions), regions)


PARK = image(
    "park",
    "sky sky sky tree dog man grass dog grass",
    [caption("man dog tree sky grass", ("man", "1", "people"), ("dog", "2", "animals"), ("sky", "3", "scene"))],
    {"1": (patch(2, 1),), "2": (patch(1, 1), patch(1, 2)), "3": (Box(0, 0, WIDTH, HEIGHT / 3),)},
)


def run(images, texts=None, patches=None, token_spans=spans, **options):
    results = evaluate_grounding(
        images, texts or word_encoder(), token_spans, patches or word_encoder(), batch_size=2, world=World(), **options
    )
    return {(result.evaluation, result.language): result for result in results}


def test_phrases_whose_words_are_in_the_picture_are_found():
    found = run([PARK])
    assert found["grounding", "en"].metrics == {POINTING: 1.0, RECALL: 1.0}
    assert (found["grounding", "en"].queries, found["grounding", "en"].documents) == (3, 1)
    assert set(found) == {("grounding", "en"), *((f"grounding:{k}", "en") for k in ("people", "animals", "scene"))}


def test_boxes_in_the_wrong_place_are_missed():
    wrong = replace(PARK, regions={"1": (patch(0, 2),), "2": (patch(2, 2),), "3": (patch(1, 1),)})
    assert run([wrong])["grounding", "en"].metrics == {POINTING: 0.0, RECALL: 0.0}


def test_one_type_wrong_shows_in_that_type():
    found = run([replace(PARK, regions={**PARK.regions, "1": (patch(0, 0),)})])
    assert found["grounding:people", "en"].metrics[POINTING] == 0.0
    assert found["grounding:animals", "en"].metrics[POINTING] == 1.0
    assert found["grounding", "en"].metrics[POINTING] == pytest.approx(2 / 3)


def test_a_phrase_of_two_types_counts_in_both():
    both = replace(PARK, captions=(caption("man dog", ("man", "1", "people/other"), ("dog", "2", "animals")),))
    found = run([both])
    assert found["grounding:people", "en"].queries == found["grounding:other", "en"].queries == 1
    assert found["grounding", "en"].queries == 2


def test_all_tokens_of_a_phrase_count_and_only_those():
    text = caption("the man and a dog tree", ("a dog tree", "1", "other"))
    picture = image("a", "a x x dog y y tree z z", [text], {"1": (Box(0, 0, WIDTH / 3, HEIGHT),)})
    assert run([picture])["grounding", "en"].metrics == {POINTING: 1.0, RECALL: 1.0}


def test_levels_beside_the_plan():
    result = run([PARK])["grounding", "en"]
    assert result.chance[POINTING] == pytest.approx((1 + 2 + 3) / 9 / 3)
    # Only the dog's boxes hold the centre; no box is half of the picture.
    assert result.baselines[WHOLE_PICTURE] == {POINTING: pytest.approx(1 / 3), RECALL: 0.0}


def test_a_collapsed_model_does_not_look_good():
    def collapsed(items):
        states = constant_encoder(items)
        ones = states.mask_BT[:, :1].expand(-1, 9)
        return type(states)(states.x_BTD[:, :1].expand(-1, 9, -1), ones, ones)

    def nine_spans(texts):
        return [[(3 * i, 3 * i + 3) for i in range(9)] for _ in texts]

    result = run([PARK], texts=collapsed, patches=collapsed, token_spans=nine_spans)["grounding", "en"]
    assert result.metrics[POINTING] == pytest.approx(result.chance[POINTING])
    assert result.metrics[RECALL] == result.baselines[WHOLE_PICTURE][RECALL]


def test_phrases_without_a_box_are_counted_and_left_out():
    captions = [caption("man dog wind", ("man", "1", "people"), ("wind", "0", "other"), ("dog", "9", "animals"))]
    result = run([replace(PARK, captions=tuple(captions))])["grounding", "en"]
    assert result.queries == 1
    assert result.counted == {"left out, not visible": 1, "left out, no box": 1}


def test_a_phrase_beyond_the_token_limit_is_missed_and_counted():
    def first_two(texts):
        return word_encoder()([" ".join(text.split()[:2]) for text in texts])

    result = run([PARK], texts=first_two, token_spans=lambda texts: [own[:2] for own in spans(texts)])
    result = result["grounding", "en"]
    assert result.counted == {"missed, beyond the token limit": 1}
    assert result.per_query[POINTING].tolist() == [1.0, 1.0, 0.0]


def test_languages_are_measured_apart_and_the_order_of_images_is_irrelevant():
    german = replace(PARK, key="a", captions=(caption("dog wiese", ("dog", "2", "animals"), language="de"),))
    first, second = run([PARK, german]), run([german, PARK])
    assert {language for _, language in first} == {"de", "en"}
    assert {key: result.metrics for key, result in first.items()} == {k: r.metrics for k, r in second.items()}
    assert {language for _, language in run([PARK, german], languages=["de"])} == {"de"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"captions": (Caption("en", "man"),)}, "has a phrase"),
        ({"regions": {}}, "language en has no phrase with a box"),
        ({"regions": {"1": (Box(100, 0, 140, 20),)}}, "image park: the box"),
        ({"regions": {"1": (Box(10, 5, 10, 20),)}}, "is empty or outside"),
        ({"captions": (Caption("en", "man", (Phrase("1", "people", 0, 4),)),)}, "from character 0 to 4"),
        ({"image": b"one two three"}, "3 patches"),
    ],
)
def test_unusable_input_is_refused(change, message):
    with pytest.raises(EvaluationError, match=message):
        run([replace(PARK, **change)])


def test_two_images_of_one_key_are_refused():
    with pytest.raises(EvaluationError, match="'park'"):
        run([PARK, PARK])
