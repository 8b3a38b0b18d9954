import pytest
import torch

from optical_scale.batch import PatchBatch, TokenBatch
from optical_scale.errors import StreamError
from optical_scale.records import Caption, CaptionedImage, TextPair
from optical_scale.stream.collate import PairCollator
from tests.unit.stream.support import characters


def transform(images):
    """A 1x1 image whose three channels are the first byte."""
    return PatchBatch(torch.tensor([float(image[0]) for image in images]).view(-1, 1, 1, 1).expand(-1, 3, 1, 1))


def decode(tokens):
    return ["".join(chr(i) for i in ids[ids > 0].tolist()) for ids in tokens.ids_BT]


PAIRS = [TextPair("k1", "sw", "one", "moja"), TextPair("k2", "de", "two", "zwei")]
CAPTIONS = (Caption("de", "Hund"), Caption("en", "dog"), Caption("en-GB", "hound"), Caption("enm", "dogge"))
IMAGES = [CaptionedImage(f"i{n}", bytes([n]), "jpg", 4, 4, CAPTIONS, corpus="f30k") for n in range(3)]


def test_text_pairs_go_source_to_source_and_target_to_target():
    batch = PairCollator(characters, tokenize_target=characters)(PAIRS)
    assert decode(batch.source) == ["one", "two"]
    assert isinstance(batch.target, TokenBatch)
    assert decode(batch.target) == ["moja", "zwei"]
    assert (batch.languages, batch.keys) == (("sw", "de"), ("k1", "k2"))


def test_images_rotate_through_the_english_captions_by_epoch():
    collate = PairCollator(characters, transform_images=transform)
    batch = collate(IMAGES, [0, 1, 2])
    assert decode(batch.source) == ["dog", "hound", "dog"]
    assert batch.languages == ("en", "en-GB", "en")
    assert isinstance(batch.target, PatchBatch)
    assert batch.target.pixels_BCHW[:, 0, 0, 0].tolist() == [0.0, 1.0, 2.0]
    assert decode(collate(IMAGES).source) == ["dog"] * 3


def test_another_caption_language():
    collate = PairCollator(characters, transform_images=transform, caption_language="de")
    assert decode(collate(IMAGES, [7, 8, 9]).source) == ["Hund"] * 3


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "empty list"),
        ([PAIRS[0], IMAGES[0]], r"text pair 'k1' .* and image 'i0' \(f30k\) met in one batch"),
        ([CaptionedImage("i9", b"x", "jpg", 4, 4, CAPTIONS[:1])], "'i9' .* no caption in 'en'; .* are in: de"),
        ([CaptionedImage("i9", b"x", "jpg", 4, 4, ())], "are in: none"),
    ],
)
def test_unusable_records_are_refused(records, message):
    with pytest.raises(StreamError, match=message):
        PairCollator(characters, tokenize_target=characters, transform_images=transform)(records)


def test_a_kind_without_a_target_is_refused():
    with pytest.raises(StreamError, match="'i0' is an image, but this run reads text pairs"):
        PairCollator(characters, tokenize_target=characters)(IMAGES)
    with pytest.raises(StreamError, match="'k1' is a text pair, but this run reads images"):
        PairCollator(characters, transform_images=transform)(PAIRS)
    with pytest.raises(StreamError, match="needs tokenize_target"):
        PairCollator(characters)
