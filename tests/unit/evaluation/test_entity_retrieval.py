from dataclasses import replace

import pytest
import torch

from evaluation.encoders import constant_encoder, vector, word_encoder
from evaluation.test_grounding import HEIGHT, WIDTH, caption, spans
from optical_scale.errors import EvaluationError
from optical_scale.evaluation.entity_retrieval import evaluate_entities
from optical_scale.evaluation.phrases import MISSED
from optical_scale.records import Box, CaptionedImage
from optical_scale.regions import NO_BOX, NOT_VISIBLE
from optical_scale.runtime.world import World

LEFT, RIGHT = Box(0, 0, WIDTH / 2, HEIGHT), Box(WIDTH / 2, 0, WIDTH, HEIGHT)


def image(key, words, *captions, **regions):
    """Two by two patches, which are words."""
    boxes = {name[1:]: (box,) for name, box in regions.items()}
    return CaptionedImage(key, words.encode(), "jpg", WIDTH, HEIGHT, captions, boxes)


BEACH = image(
    "beach", "man dog man dog", caption("man dog", ("man", "1", "people"), ("dog", "2", "animals")), _1=LEFT, _2=RIGHT
)
STREET = image(
    "street",
    "car cat car cat",
    caption("car cat", ("car", "3", "vehicles"), ("cat", "4", "animals")),
    _3=LEFT,
    _4=RIGHT,
)


def run(images, texts=None, patches=None, token_spans=spans, **options):
    results = evaluate_entities(
        images, texts or word_encoder(), token_spans, patches or word_encoder(), batch_size=2, world=World(), **options
    )
    return {(r.evaluation, r.language, r.direction): r for r in results}


def ranks(result):
    return [round(1 / value) for value in result.per_query["MRR"].tolist()]


def test_every_phrase_finds_its_region_and_its_image():
    found = run([BEACH, STREET])
    regions, pictures = (found["entity_retrieval", "en", f"phrase_to_{what}"] for what in ("region", "image"))
    assert regions.metrics["R@1"] == pictures.metrics["R@1"] == 1.0
    assert (regions.queries, regions.documents) == (4, 4)
    assert (pictures.queries, pictures.documents) == (4, 2)
    assert (regions.chance["R@1"], pictures.chance["R@1"]) == (pytest.approx(1 / 4), pytest.approx(1 / 2))
    assert found["entity_retrieval:animals", "en", "phrase_to_region"].queries == 2
    assert len(found) == 2 * (1 + 3)


def test_boxes_decide_which_region_is_meant():
    crossed = replace(BEACH, regions={"1": (RIGHT,), "2": (LEFT,)})
    found = run([crossed, STREET])
    assert min(ranks(found["entity_retrieval", "en", "phrase_to_region"])[:2]) > 1
    # The other region of the same image is found, so the image is right.
    assert ranks(found["entity_retrieval", "en", "phrase_to_image"]) == [1, 1, 1, 1]


def test_a_region_is_the_mean_of_its_patches_by_cover():
    half = Box(0, 0, WIDTH * 3 / 4, HEIGHT / 2)  # one patch, and half of its neighbour
    picture = image("a", "man dog x x", caption("man", ("man", "1", "people")), _1=half)
    unit = torch.nn.functional.normalize
    expected = unit(unit(vector("man"), dim=0) + 0.5 * unit(vector("dog"), dim=0), dim=0)
    # "mixed" is that vector, "near" a little off it: it finds the region before a region of "near" does only if equal.

    def texts(items):
        states = word_encoder()(items)
        states.x_BTD[:, 1] = expected
        return states

    near = unit(expected + 0.05 * unit(vector("other"), dim=0), dim=0)

    def patches(items):
        states = word_encoder()(items)
        for row, item in enumerate(items):
            if b"near" in item:
                states.x_BTD[row, 1:] = near
        return states

    other = image("b", "near near near near", caption("man", ("man", "1", "people")), _1=half)
    assert ranks(run([picture, other], texts, patches)["entity_retrieval", "en", "phrase_to_region"]) == [1, 2]


def test_all_tokens_of_a_phrase_make_the_query():
    long = replace(BEACH, captions=(caption("zzz man yyy", ("zzz man yyy", "1", "people")),))
    found = run([long, STREET])["entity_retrieval", "en", "phrase_to_region"]
    assert (found.queries, found.documents) == (3, 3)


def test_regions_that_no_phrase_names_are_no_documents():
    more = replace(BEACH, regions={**BEACH.regions, "9": (LEFT,)})
    assert run([more, STREET])["entity_retrieval", "en", "phrase_to_region"].documents == 4


def test_phrases_left_out_or_beyond_the_limit_are_counted():
    captions = (
        caption("man wind dog sun", ("man", "1", "a"), ("wind", "0", "a"), ("sun", "7", "a"), ("dog", "2", "a")),
    )

    def first(texts):
        return word_encoder()([text.split()[0] for text in texts])

    found = run([replace(BEACH, captions=captions), STREET], first, token_spans=lambda t: [own[:1] for own in spans(t)])
    result = found["entity_retrieval", "en", "phrase_to_region"]
    assert result.counted == {NOT_VISIBLE: 1, NO_BOX: 1, MISSED: 2}
    assert ranks(result) == [1, 4, 1, 4]


def test_a_collapsed_model_earns_chance():
    def collapsed(items):
        states = constant_encoder(items)
        ones = states.mask_BT[:, :1].expand(-1, 4)
        return type(states)(states.x_BTD[:, :1].expand(-1, 4, -1), ones, ones)

    def four(texts):
        return [[(4 * i, 4 * i + 4) for i in range(4)] for _ in texts]

    for result in run([BEACH, STREET], collapsed, collapsed, four).values():
        if result.evaluation == "entity_retrieval":
            assert result.metrics["MRR"] == pytest.approx(result.chance["MRR"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"regions": {}, "captions": BEACH.captions}, "entity_retrieval: language en has no phrase with a box"),
        ({"regions": {"1": (Box(100, 0, 140, 20),)}}, "entity_retrieval: image beach: the box"),
        ({"image": b"one two three"}, "3 patches"),
    ],
)
def test_unusable_input_is_refused(change, message):
    with pytest.raises(EvaluationError, match=message):
        run([replace(BEACH, **change)])
