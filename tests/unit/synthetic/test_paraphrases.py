"""English paraphrases cover the bitext's words and never leak its held-out sentences."""

import pytest

from optical_scale.synthetic.bitext import write_bitext
from optical_scale.synthetic.paraphrases import write_paraphrases
from optical_scale.synthetic.phrases import split_of

SIZES = {"train": 3000, "validation": 100, "test": 100}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("paraphrases")
    assert write_paraphrases(folder, seed=3, **SIZES) == {
        f"{split}.en-en.{side}": size for split, size in SIZES.items() for side in ("query", "passage")
    }
    return {
        split: list(
            zip(
                *((folder / f"{split}.en-en.{side}").read_text().splitlines() for side in ("query", "passage")),
                strict=True,
            )
        )
        for split in SIZES
    }


def test_sides_differ_and_are_distinct(pairs):
    for split, rows in pairs.items():
        assert len(set(rows)) == SIZES[split]
        assert all(query != passage for query, passage in rows)


def test_no_text_of_one_split_is_in_another(pairs):
    texts = {split: {text for pair in rows for text in pair} for split, rows in pairs.items()}
    assert not texts["train"] & (texts["validation"] | texts["test"])
    assert not texts["validation"] & texts["test"]


def test_training_texts_are_never_held_out_english_of_the_bitext(pairs, tmp_path):
    assert {split_of(text) for pair in pairs["train"] for text in pair} == {"train"}
    write_bitext(tmp_path, seed=3, high=1, low=1, validation=500, test=500)
    held_out = {line for split in ("validation", "test") for line in (tmp_path / f"{split}.en-de.en").open()}
    assert not {f"{text}\n" for pair in pairs["train"] for text in pair} & held_out


def test_both_forms_are_on_both_sides(pairs):
    short_queries = sum("&" in query and "&" not in passage for query, passage in pairs["train"])
    short_passages = sum("&" in passage and "&" not in query for query, passage in pairs["train"])
    assert 0.5 < short_queries / short_passages < 2


def test_the_words_of_the_bitext_are_nearly_all_seen(pairs, tmp_path):
    write_bitext(tmp_path, seed=4, high=1, low=1, validation=300, test=1)
    seen = {word.strip(",:()") for pair in pairs["train"] for text in pair for word in text.split()}
    needed = {
        word.strip(",:()")
        for word in (tmp_path / "validation.en-de.en").read_text().split()
        if not any(c.isdigit() for c in word)
    }
    assert len(needed - seen) < 0.02 * len(needed)


def test_same_seed_same_bytes(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_paraphrases(tmp_path / name, seed=5, train=50, validation=5, test=5)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
