"""The bitext: bytes, alignment, distinctness, splits, and what it refuses."""

import pytest

from optical_scale.errors import CorpusError
from optical_scale.synthetic.bitext import collect, write_bitext
from optical_scale.synthetic.cldr import HIGH_RESOURCE, LANGUAGES
from optical_scale.synthetic.phrases import Kind, Slot, split_of

SIZES = {"high": 400, "low": 60, "validation": 54, "test": 54}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bitext")
    return folder, write_bitext(folder, seed=7, **SIZES)


def lines(path):
    text = path.read_bytes().decode()
    assert text.endswith("\n")
    return text.removesuffix("\n").split("\n")


def test_files_have_the_sizes_asked_for_and_counts_say_so(corpus):
    folder, counts = corpus
    assert set(counts) == {path.name for path in folder.iterdir()}
    assert len(counts) == 3 * 8 * 2
    for language in LANGUAGES:
        size = SIZES["high" if language in HIGH_RESOURCE else "low"]
        for side in ("en", language):
            assert counts[f"train.en-{language}.{side}"] == size == len(lines(folder / f"train.en-{language}.{side}"))
            assert counts[f"test.en-{language}.{side}"] == SIZES["test"]


def test_lines_are_plain_sentences(corpus):
    for path in corpus[0].iterdir():
        for line in lines(path):
            assert line == " ".join(line.split()), path.name
            assert line


def test_english_sides_are_distinct_and_differ_from_the_translation(corpus):
    folder, _ = corpus
    for split in ("train", "validation", "test"):
        for language in LANGUAGES:
            english = lines(folder / f"{split}.en-{language}.en")
            assert len(set(english)) == len(english)
            other = lines(folder / f"{split}.en-{language}.{language}")
            assert not [pair for pair in zip(english, other, strict=True) if pair[0] == pair[1]]


def test_splits_share_no_english_sentence_in_any_language(corpus):
    folder, _ = corpus
    sides = {
        split: {line for language in LANGUAGES for line in lines(folder / f"{split}.en-{language}.en")}
        for split in ("train", "validation", "test")
    }
    assert not sides["train"] & (sides["validation"] | sides["test"])
    assert not sides["validation"] & sides["test"]
    assert {split_of(line) for line in sides["train"]} == {"train"}


def test_held_out_english_is_the_same_for_all_languages(corpus):
    folder, _ = corpus
    for split in ("validation", "test"):
        assert len({(folder / f"{split}.en-{language}.en").read_bytes() for language in LANGUAGES}) == 1


def test_training_english_differs_between_languages(corpus):
    folder, _ = corpus
    assert set(lines(folder / "train.en-de.en")) != set(lines(folder / "train.en-fr.en"))


def test_marathi_is_written_in_devanagari(corpus):
    text = (corpus[0] / "train.en-mr.mr").read_text(encoding="utf-8")
    assert not set("0123456789") & set(text)
    assert sum("\u0900" <= c <= "\u097f" for c in text) > 0.6 * sum(c.isalpha() or c.isdigit() for c in text)


def test_same_seed_same_bytes_other_seed_other_bytes(corpus, tmp_path):
    folder, _ = corpus
    for seed in (7, 8):
        (tmp_path / str(seed)).mkdir()
        write_bitext(tmp_path / str(seed), seed=seed, **SIZES)
    for path in folder.iterdir():
        assert (tmp_path / "7" / path.name).read_bytes() == path.read_bytes()
    assert (tmp_path / "8" / "train.en-sw.sw").read_bytes() != (folder / "train.en-sw.sw").read_bytes()


def tiny_kinds(*sizes):
    def slot(name, size):
        return Slot(name, size, lambda book, index, short: f"{name}{index}")

    return [Kind(f"k{n}", (slot(f"k{n}-", size),), lambda book, parts, style: parts[0]) for n, size in enumerate(sizes)]


def test_kinds_take_turns_and_a_large_one_fills_in_for_a_small_one():
    rows = collect(lambda phrase: (f"{phrase[0].name}-{phrase[1]}",), 12, 0, "x", kinds=tiny_kinds(2, 50, 50))
    found = [row[0].split("-")[0] for row in rows]
    assert [found.count(kind) for kind in ("k0", "k1", "k2")] == [2, 5, 5]


def test_asking_for_more_than_exists_says_how_many_exist():
    kinds = tiny_kinds(3, 4)
    with pytest.raises(CorpusError, match="8 distinct lines asked for, but at most 7 exist"):
        collect(lambda phrase: (str(phrase),), 8, 0, "x", kinds=kinds)
    with pytest.raises(CorpusError, match="5 distinct lines asked for, but 3 exist"):
        collect(lambda phrase: (str(phrase),) if phrase[0].name == "k0" else None, 5, 0, "x", kinds=kinds)


def test_write_bitext_refuses_an_impossible_size(tmp_path):
    with pytest.raises(CorpusError, match="train en-de"):
        write_bitext(tmp_path, seed=0, high=10**12, low=1, validation=1, test=1)
