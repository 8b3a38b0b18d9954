"""Phrases are addressed by integers, drawn without replacement, and split by their words."""

import random
from collections import Counter
from itertools import islice

import pytest

from optical_scale.synthetic.phrases import (
    CANONICAL,
    PARAPHRASES,
    Kind,
    Slot,
    Speaker,
    draw,
    phrase_kinds,
    shuffled,
    split_of,
)


@pytest.mark.parametrize("size", [1, 2, 7, 100])
def test_shuffled_is_a_permutation(size):
    numbers = list(shuffled(size, random.Random(3)))
    assert sorted(numbers) == list(range(size))
    assert size < 7 or numbers != sorted(numbers)


def test_shuffled_is_lazy():
    first = list(islice(shuffled(10**15, random.Random(0)), 1000))
    assert len(set(first)) == 1000
    assert max(first) > 10**14


def test_all_index_tuples_are_drawn_once_except_repetitions():
    letter = Slot("letter", 4, lambda book, index, short: "abcd"[index])
    kind = Kind("pair", (letter, letter), lambda book, parts, style: " ".join(parts))
    drawn = [indices for _, indices in draw(kind, 5, "x")]
    assert sorted(drawn) == [(a, b) for a in range(4) for b in range(4) if a != b]
    assert drawn != [indices for _, indices in draw(kind, 6, "x")]


def test_a_split_is_a_property_of_the_words_not_of_their_order():
    assert split_of("Kenya, Chad, and Fiji") == split_of("Fiji, Kenya, and Chad")
    shares = Counter(split_of(f"phrase {number}") for number in range(5000))
    assert shares["train"] / 5000 == pytest.approx(0.8, abs=0.03)
    assert shares["test"] / 5000 == pytest.approx(0.1, abs=0.02)


def test_every_kind_is_large_and_every_phrase_has_a_paraphrase():
    speaker = Speaker("en")
    for kind in phrase_kinds():
        assert kind.size > 12_000, kind.name
        for _, indices in islice(draw(kind, 1, "test"), 20):
            text = speaker.say(kind, indices, CANONICAL)
            assert any(speaker.say(kind, indices, style) != text for style in PARAPHRASES), text


def test_slot_names_are_unique_because_they_key_the_memory_of_what_was_said():
    slots = {id(slot): slot.name for kind in phrase_kinds() for slot in kind.slots}
    assert len(set(slots.values())) == len(slots)
    assert len({kind.name for kind in phrase_kinds()}) == len(phrase_kinds())
