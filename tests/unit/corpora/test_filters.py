import json

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from optical_scale.corpora.filters import (
    DropCounts,
    HeldOut,
    LengthBounds,
    LengthRatio,
    TokenRatio,
    blank,
    filtered,
    normalized,
    pair_digest,
    unicode_normalized,
    untranslated,
)
from optical_scale.corpora.reader import LeftOut
from optical_scale.errors import CorpusError
from optical_scale.records import CaptionedImage, TextPair


def pair(source, target, language="sw", corpus="c"):
    return TextPair("k", language, source, target, corpus)


def test_every_record_is_counted_once_under_its_first_reason():
    counts = DropCounts()
    pairs = [pair("a b", "c d"), pair("a b", "a B"), pair("", "x"), pair("a", "x" * 9), pair("a b", "c d", "tl")]
    kept = list(filtered(pairs, [LengthRatio(3), untranslated], counts))
    assert kept == [pairs[0], pairs[4]]
    assert dict(counts.kept) == {("c", "sw"): 1, ("c", "tl"): 1}
    assert counts.reasons("c", "sw") == {"untranslated": 1, "blank": 1, "length_ratio": 1}
    assert counts.reasons("c", "tl") == {}


def test_images_pass_and_are_counted():
    counts = DropCounts()
    image = CaptionedImage("k", b"", "jpg", 1, 1, (), corpus="f")
    assert list(filtered([image], [LengthRatio(3)], counts)) == [image]
    assert dict(counts.kept) == {("f", ""): 1}


@pytest.mark.parametrize("side", ["", " ", "\u2028\x85", "\u3000"])
def test_blank(side):
    assert blank(pair("a", side)) == blank(pair(side, "a")) == "blank"
    assert blank(pair("a", "b")) is None


@pytest.mark.parametrize(
    ("unit", "target", "reason"),
    [
        ("words", "one", "too_short"),
        ("words", "one two", None),
        ("words", "a b c d", "too_long"),
        ("characters", "a", "too_short"),
        ("characters", "abcd", "too_long"),
    ],
)
def test_length_bounds_include_their_ends(unit, target, reason):
    assert LengthBounds(unit, 2, 3)(pair("x y", target)) == reason


def test_length_ratio_looks_both_ways_and_includes_its_bound():
    rule = LengthRatio(2)
    assert rule(pair("ab", "abcd")) is None
    assert rule(pair("ab", "abcde")) == rule(pair("abcde", "ab")) == "length_ratio"


def test_impossible_bounds_are_refused():
    with pytest.raises(CorpusError, match="at least 3 and at most 2"):
        LengthBounds("words", 3, 2)
    with pytest.raises(CorpusError, match="drops every pair"):
        LengthRatio(0.5)


def test_duplicates_need_both_sides_and_the_language():
    different = [pair("a", "b"), pair("a", "c"), pair("b", "b"), pair("a", "b", "tl")]
    assert len({pair_digest(one) for one in different}) == 4
    assert pair_digest(pair("a", "b", corpus="other")) == pair_digest(pair("a", "b"))


def test_counts_add_up_and_survive_json():
    first, second = DropCounts(), DropCounts()
    list(filtered([pair("a b", "c d"), pair("", "x")], [], first))
    list(filtered([pair("e", "f"), LeftOut("c", "sw", "part:lost", 3)], [], second))
    first.add(second)
    first.drop_kept("c", "sw", "duplicate")
    again = DropCounts(**json.loads(json.dumps(first.state())))
    assert vars(again) == vars(first)
    assert (again.kept["c", "sw"], again.reasons("c", "sw")) == (1, {"blank": 1, "duplicate": 1})
    assert again.parts == {("c", "sw", "part:lost"): 3}


def test_held_out_sees_through_case_punctuation_and_width(tmp_path):
    path = tmp_path / "test.en"
    path.write_text("A man, in a HAT!\n\n…\nनमस्ते दुनिया\n", encoding="utf-8")
    rule = HeldOut([path])
    assert rule(pair("a man in  a hat", "mtu")) == "held_out"
    assert rule(pair("hello world", "नमस्ते, दुनिया।")) == "held_out"
    assert rule(pair("Ａ man in a hat", "mtu")) == "held_out"
    assert rule(pair("a man in a cap", "नमसत दनय")) is None, "vowel signs distinguish words"
    assert rule(pair("!!!", "-")) is None, "nothing but punctuation matches nothing"


def test_normalized_keeps_words_apart():
    assert normalized("Straße\u00a0—\u200b 42") == "strasse 42"


def test_unicode_form_changes_texts_of_pairs_and_nothing_else():
    image = CaptionedImage("k", b"", "jpg", 1, 1, (), corpus="f")
    found = list(unicode_normalized([pair("e\u0301 ﬁ", "Ａ"), image], "NFC"))
    assert found == [pair("é ﬁ", "Ａ"), image]
    assert next(unicode_normalized([pair("e\u0301 ﬁ", "Ａ")], "NFKC")) == pair("é fi", "A")


def test_untranslated_spares_english():
    assert untranslated(pair("A dog!", "a dog")) == "untranslated"
    assert untranslated(pair("A dog!", "mbwa")) is None
    assert untranslated(pair("A dog!", "a dog", "en")) is None


def test_token_ratio_counts_tokens_not_characters(tmp_path):
    tokenizer = Tokenizer(models.WordLevel({"u": 0}, unk_token="u"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_truncation(2)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    rule = TokenRatio(2, tmp_path / "tokenizer.json")
    assert rule(pair("incomprehensibilities of", "a b c d")) is None
    assert rule(pair("a b c d e", "extraordinarily longwinded")) == "token_ratio"
    with pytest.raises(CorpusError, match=r"x\.json: no tokenizer"):
        TokenRatio(2, tmp_path / "x.json")
