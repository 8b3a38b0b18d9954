import random
import tracemalloc

import pytest

from optical_scale.corpora.alignment import find_misaligned
from optical_scale.records import TextPair


def parallel(lines, seed=0, noise=0.15, numbers=True):
    """English and other lines of like lengths, every fifth with a number."""
    source = random.Random(seed)
    english, other = [], []
    for i in range(lines):
        words = max(2, int(source.lognormvariate(2.3, 0.5)))
        number = f" {1000 + 7 * i}" if numbers and i % 5 == 0 else ""
        english.append("word " * words + number)
        other.append("abcdef " * max(1, round(words * source.gauss(1, noise))) + number)
    return english, other


def pairs(english, other, corpus="c", language="so"):
    rows = enumerate(zip(english, other, strict=True), 1)
    return [TextPair(f"{corpus}-{i:08d}", language, x, y, corpus) for i, (x, y) in rows]


def line(key):
    return int(key.rsplit("-", 1)[1])


@pytest.mark.parametrize("noise", [0.05, 0.3])
def test_a_corpus_in_step(noise):
    assert list(find_misaligned(pairs(*parallel(5_000, noise=noise)))) == []


def out_of_step(english, other, at, shift):
    """From line ``at`` on, English line i belongs to the other's line i + shift."""
    moved = other[:at] + ["word " * 9] * shift + other[at:] if shift > 0 else other[:at] + other[at - shift :]
    size = min(len(english), len(moved))
    return pairs(english[:size], moved[:size])


@pytest.mark.parametrize("shift", [-5, -1, 1, 2])
def test_a_shift_is_found_where_it_is(shift):
    (found,) = find_misaligned(out_of_step(*parallel(2_000), 900, shift))
    assert found.shift == shift
    assert line(found.first) in range(801, 1002)
    assert line(found.last) >= 1_900
    assert found.correlation < 0.3 < 0.8 < found.correlation_shifted
    assert found.shared < 0.1 < 0.9 < found.shared_shifted
    assert f"c (so): {found.pairs:,} pairs" in str(found)
    assert f"look shifted by {shift:+d} lines" in str(found)


def test_back_in_step_ends_the_stretch():
    english, other = parallel(3_000)
    (found,) = find_misaligned(pairs(english, other[:1_000] + other[1_001:2_000] + ["word"] + other[2_000:]))
    assert (found.shift, found.pairs) == (-1, 1_000)


def test_lines_that_belong_nowhere():
    english, other = parallel(3_000)
    strange = parallel(400, seed=9)[1]
    (found,) = find_misaligned(pairs(english, other[:1_000] + strange + other[1_400:]))
    assert (found.shift, line(found.first), line(found.last)) == (None, 1_001, 1_400)
    assert "look unrelated (lengths correlate" in str(found)


def test_a_corpus_of_random_pairs():
    english, strange = parallel(2_000)[0], parallel(2_000, seed=1, numbers=False)[1]
    assert {found.shift for found in find_misaligned(pairs(english, strange))} == {None}


def test_one_displaced_pair_sorted_or_short_files_raise_no_alarm():
    english, other = parallel(2_000)
    other[500], other[501] = other[501], other[500]
    assert list(find_misaligned(pairs(english, other))) == []
    by_length = sorted(zip(english, parallel(2_000, seed=3)[1], strict=True), key=lambda both: len(both[0]))
    assert [f for f in find_misaligned(pairs(*zip(*by_length, strict=True))) if f.shift is not None] == []
    assert list(find_misaligned(pairs(["same"] * 1_000, ["sawa"] * 1_000))) == []
    assert list(find_misaligned(pairs(english[:49], other[1:50]))) == []


def test_shared_numbers_in_other_digits_speak_against_an_alarm():
    english, _ = parallel(1_000, numbers=False)
    english = [f"{text} {i:04d}" for i, text in enumerate(english)]
    digits = str.maketrans("0123456789", "०१२३४५६७८९")
    other = ["शब्द " * random.Random(i).randint(2, 30) + f"{i:04d}".translate(digits) for i in range(1_000)]
    assert list(find_misaligned(pairs(english, other))) == []


def test_corpora_and_languages_are_kept_apart():
    english, other = parallel(1_000)
    bad = out_of_step(english, other, 300, -1)
    good = pairs(english, other, language="mr")
    mixed = [pair for both in zip(good, bad, strict=False) for pair in both]
    assert [(found.language, found.shift) for found in find_misaligned(mixed)] == [("so", -1)]


def test_memory_does_not_grow_with_the_corpus():
    english, other = parallel(1_000)
    peaks = []
    for times in (1, 20):
        stream = (
            TextPair(f"c-{i}", "so", x, y, "c") for i in range(times) for x, y in zip(english, other, strict=True)
        )
        tracemalloc.start()
        assert list(find_misaligned(stream)) == []
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
