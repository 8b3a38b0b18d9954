import pytest

from evaluation.encoders import constant_encoder, word_encoder
from optical_scale.errors import EvaluationError
from optical_scale.evaluation.image_text import evaluate_image_text
from optical_scale.records import Caption, CaptionedImage
from optical_scale.runtime.world import World


def image(key: str, content: str, *captions: tuple[str, str]) -> CaptionedImage:
    """An "image" whose patches are words."""
    return CaptionedImage(key, content.encode(), "jpg", 8, 8, tuple(Caption(*caption) for caption in captions))


def run(images, **options):
    results = evaluate_image_text(images, word_encoder(), word_encoder(), batch_size=2, world=World(), **options)
    return {(r.language, r.mode, r.direction): r for r in results}


IMAGES = [
    image("b", "dog grass", ("en", "dog grass"), ("en", "unrelated words"), ("de", "dog")),
    image("a", "cat sofa", ("en", "cat sofa"), ("en", "something else")),
    image("c", "boat lake", ("en", "boat lake"), ("de", "lake boat")),
]


def test_any_hit_counts_one_good_caption_of_several():
    result = run(IMAGES)["en", "dense", "image_to_text"]
    assert result.metrics["R@1"] == 1.0
    assert result.metrics["MAP"] < 1.0, "the bad captions are found late, which any-hit does not see"
    assert (result.queries, result.documents) == (3, 5)


def test_a_bad_caption_is_a_query_of_its_own():
    result = run(IMAGES)["en", "dense", "text_to_image"]
    assert (result.queries, result.documents) == (5, 3)
    assert result.per_query["R@1"].tolist()[:3] == [1.0, 1.0, 1.0]


def test_a_language_searches_only_images_captioned_in_it():
    result = run(IMAGES)["de", "late_interaction", "text_to_image"]
    assert (result.queries, result.documents) == (2, 2)
    assert result.metrics["R@1"] == 1.0


def test_equal_captions_are_relevant_to_every_image_that_carries_them():
    images = [image("a", "cat", ("en", "pet")), image("b", "dog", ("en", "pet")), image("c", "boat", ("en", "boat"))]
    found = run(images)
    assert found["en", "dense", "text_to_image"].queries == 2
    assert found["en", "dense", "image_to_text"].documents == 2
    # "boat" has one relevant image of three, "pet" two: chance of a hit at 1 is their mean.
    assert found["en", "dense", "text_to_image"].chance["R@1"] == pytest.approx((1 / 3 + 2 / 3) / 2)


def test_a_long_wrong_caption_does_not_win_by_length():
    long_caption = " ".join(f"filler{i}" for i in range(30))
    images = [image("a", "cat", ("en", "cat")), image("b", long_caption, ("en", long_caption))]
    assert run(images)["en", "late_interaction", "image_to_text"].metrics["R@1"] == 1.0


def test_a_collapsed_model_does_not_look_good():
    images = [image(f"k{i:02}", "x", ("en", f"caption {i:02}")) for i in range(30)]
    for result in evaluate_image_text(images, constant_encoder, constant_encoder, batch_size=7, world=World()):
        assert result.metrics["MRR"] == pytest.approx(result.chance["MRR"])


def test_missing_language_and_repeated_keys_are_refused():
    with pytest.raises(EvaluationError, match="language fr"):
        run(IMAGES, languages=["fr"])
    with pytest.raises(EvaluationError, match="'a'"):
        run([IMAGES[1], IMAGES[1]])
    with pytest.raises(EvaluationError, match="has a caption"):
        run([image("a", "cat")])
