import math

import numpy as np
import pytest
import torch

from optical_scale.batch import PairBatch, PatchBatch, TokenBatch
from optical_scale.records import Caption, CaptionedImage, TextPair
from optical_scale.stream.collate import PairCollator
from optical_scale.stream.frequencies import PIECE, PIECES, InverseDocumentFrequency, document_counts, places
from tests.unit.stream.support import characters

VOCABULARY = 128


def frequencies(**texts):
    rows = {language: [np.array([ord(c) for c in text]) for text in found] for language, found in texts.items()}
    return InverseDocumentFrequency({tag: document_counts(found, VOCABULARY) for tag, found in rows.items()})


@pytest.mark.parametrize("samples", [0, 1, PIECE, PIECE + 1, 5000, PIECE * PIECES, PIECE * PIECES + 1, 10_000_000])
def test_a_source_is_counted_whole_or_in_even_runs(samples):
    found = places(samples)
    indices = [index for run in found for index in run]
    assert indices == sorted(set(indices))
    assert set(indices) <= set(range(samples))
    if samples <= PIECE * PIECES:
        assert len(indices) == samples
    else:
        assert len(found) == PIECES
        assert len(indices) == PIECE * PIECES
        gaps = np.diff([run.start for run in found])
        assert gaps.max() - gaps.min() <= 1


def test_a_token_counts_once_a_sentence_and_counts_add_up():
    rows = [np.array(row, np.uint32) for row in ([1, 1, 2], [2], [], [3, 2])]
    whole = document_counts(rows, 5)
    assert whole.tolist() == [0, 1, 3, 1, 0, 4]
    assert (document_counts(rows[:1], 5) + document_counts(rows[1:], 5) == whole).all()
    assert document_counts([], 5).tolist() == [0] * 6


def test_weights_are_minus_the_log_of_laplaces_probability():
    found = frequencies(sw=["ab", "ac", "a"]).weigh(characters(["abz", "a"]), ["sw", "sw"])
    expected = [[math.log(5 / 4), math.log(5 / 2), math.log(5)], [math.log(5 / 4), 0.0, 0.0]]
    torch.testing.assert_close(found.idf_BT, torch.tensor(expected))


def test_languages_are_counted_apart():
    """The word that every Swahili sentence has is common, however few Swahili sentences there are."""
    idf = frequencies(sw=["ya b", "ya c"], de=["der d"] * 1000)
    found = idf.weigh(characters(["yb", "yb"]), ["sw", "de"])
    assert found.idf_BT[0, 0] < found.idf_BT[0, 1]
    assert found.idf_BT[1, 0] == found.idf_BT[1, 1]


def test_a_language_without_sentences_weighs_all_tokens_alike():
    found = frequencies(sw=[]).weigh(characters(["ab"]), ["sw"])
    torch.testing.assert_close(found.idf_BT, torch.full((1, 2), math.log(2)))


def test_batches_bring_weights_of_both_sides_negatives_included():
    sides = frequencies(en=["one", "ten"]), frequencies(sw=["moja"], de=["eins"])
    collate = PairCollator(characters, tokenize_target=characters, negatives=1, idf=sides)
    batch = collate([TextPair("k", "sw", "one", "moja", negatives=("ten!",)), TextPair("l", "de", "ten", "zehn")])
    assert isinstance(batch, PairBatch)
    expected = sides[0].weigh(characters(["one", "ten", "ten!"]), ["en"] * 3)
    assert torch.equal(batch.source.idf_BT, expected.idf_BT)
    assert torch.equal(batch.target.idf_BT, sides[1].weigh(characters(["moja", "zehn"]), ["sw", "de"]).idf_BT)
    plain = PairCollator(characters, tokenize_target=characters)([TextPair("k", "sw", "one", "moja")])
    assert plain.source.idf_BT is None


def test_images_have_weights_on_the_english_side_only():
    collate = PairCollator(
        characters,
        transform_images=lambda images: PatchBatch(torch.zeros(1, 3, 1, 1)),
        idf=(frequencies(en=["a"]), None),
    )
    batch = collate([CaptionedImage("i", b"", "jpg", 4, 4, (Caption("en", "ab"),), corpus="c")])
    assert isinstance(batch.source, TokenBatch)
    torch.testing.assert_close(batch.source.idf_BT, torch.tensor([[math.log(3 / 2), math.log(3)]]))
    assert isinstance(batch.target, PatchBatch)
