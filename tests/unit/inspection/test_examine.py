from dataclasses import replace

import pytest

from optical_scale.errors import ConfigError, ShardError
from optical_scale.inspection.examine import chosen, inspect_folder
from optical_scale.inspection.schema import EDGES, Inspection
from optical_scale.inspection.tokens import load_counters
from optical_scale.records import TextPair
from optical_scale.shards.manifest import Dropped
from optical_scale.shards.reader import ShardFolder
from tests.unit.inspection.folders import DROPPED, image, pairs, write, write_tokenizer


def account(report, corpus, language):
    [row] = [row for row in report.accounts if (row.corpus, row.language) == (corpus, language)]
    return row


def texts(report, language, side):
    [row] = [row for row in report.texts if (row.language, row.side) == (language, side)]
    return row


def test_choices_are_sorted_repeatable_and_depend_on_seed_and_purpose():
    assert chosen(5, 9, 0) == [0, 1, 2, 3, 4]
    first = chosen(10_000, 100, 1, "sw")
    assert first == sorted(set(first)) == chosen(10_000, 100, 1, "sw")
    assert len(first) == 100
    assert max(first) < 10_000
    assert first != chosen(10_000, 100, 2, "sw")
    assert first != chosen(10_000, 100, 1, "de")


def test_accounts_add_up_to_what_was_read_from_the_source(tmp_path):
    folder = write(tmp_path / "s", [*pairs(20), *pairs(5, "de"), *pairs(6, corpus="web")], DROPPED)
    report = inspect_folder(ShardFolder(folder))
    assert [(row.corpus, row.language) for row in report.accounts] == [
        ("news", "de"), ("news", "sw"), ("web", "sw"), ("lost", "yo"),
    ]  # fmt: skip
    assert account(report, "news", "sw").kept == 20
    assert account(report, "news", "sw").dropped == {"blank": 3, "duplicate": 4}
    assert account(report, "web", "sw").kept == 6
    assert account(report, "lost", "yo").kept == 0
    assert all(row.exact and row.unit == "pairs" for row in report.accounts)
    assert {row.language: (row.samples, row.shards, row.read) for row in report.languages} == {
        "de": (5, 1, 5),
        "sw": (26, 4, 26),
    }
    assert sum(row.bytes for row in report.languages) == report.bytes


def test_with_several_corpora_and_a_limit_kept_is_an_estimate_and_says_so(tmp_path):
    folder = write(tmp_path / "s", [*pairs(600), *pairs(200, corpus="web"), *pairs(30, "de")], per_shard=500)
    report = inspect_folder(ShardFolder(folder), limit=200)
    news, web = account(report, "news", "sw"), account(report, "web", "sw")
    assert not news.exact
    assert not web.exact
    assert news.kept + web.kept == 800
    assert 450 < news.kept < 720, "a quarter of 800 in a sample of 200: 600 give or take four deviations"
    assert account(report, "news", "de").exact


def test_one_corpus_is_exact_whatever_was_read(tmp_path):
    report = inspect_folder(ShardFolder(write(tmp_path / "s", pairs(50))), limit=7)
    assert (account(report, "news", "sw").kept, account(report, "news", "sw").exact) == (50, True)
    assert report.languages[0].read == 7


def test_lengths_are_those_of_the_texts(tmp_path):
    report = inspect_folder(ShardFolder(write(tmp_path / "s", pairs(21))))
    english, target = texts(report, "sw", "english"), texts(report, "sw", "target")
    assert (english.words.mean, english.words.median, english.words.most) == (11, 11, 21)
    assert (english.words.low, english.words.high) == (2, 20)
    assert target.words.most == 42
    assert english.characters.most == 21 * 4 - 1
    classes = dict(zip(report.edges, english.words.counts, strict=True))
    assert classes[0] == 0
    assert classes[1] == 1
    assert classes[4] == 2, "4 and 5"
    assert classes[16] == 6, "16 to 21"
    assert sum(classes.values()) == english.read == 21
    assert list(EDGES) == sorted(set(EDGES))


def test_tokens(tmp_path):
    path = write_tokenizer(tmp_path / "tokenizer.json")
    report = inspect_folder(
        ShardFolder(write(tmp_path / "s", pairs(40))), counters=load_counters([path]), paths=[str(path)]
    )
    [english], [target] = (texts(report, "sw", side).tokens for side in ("english", "target"))
    assert english.lengths.most == 42, "neither cut nor padded, special tokens included"
    assert english.per_word == 1
    assert english.unknown == 0
    assert english.premium is None
    assert target.unknown == 1
    assert target.premium == 2
    assert english.truncated == {32: 10 / 40, 64: 0, 128: 0, 256: 0, 512: 0}
    assert target.truncated[32] == 25 / 40, "2i + 2 > 32 from i = 16 on"
    total = sum(i + 2 for i in range(1, 41))
    assert english.lost[32] == sum(i + 2 - 32 for i in range(31, 41)) / total
    assert report.shown[0].texts[1].tokens == {tmp_path.name: len(report.shown[0].texts[1].text.split()) + 2}


def test_scripts_without_blanks_have_no_fertility(tmp_path):
    path = write_tokenizer(tmp_path / "tokenizer.json")
    thai = [TextPair(f"x-th-{i}", "th", "a dog", "สุนัขวิ่ง", "x") for i in range(3)]
    amharic = [TextPair(f"x-am-{i}", "am", "a dog", "ውሻ ሮጠ", "x") for i in range(3)]
    report = inspect_folder(
        ShardFolder(write(tmp_path / "s", [*thai, *amharic])), counters=load_counters([path]), paths=[str(path)]
    )
    assert not texts(report, "th", "target").spaced
    assert texts(report, "th", "target").tokens[0].per_word is None
    assert texts(report, "th", "english").spaced
    assert texts(report, "am", "target").spaced
    assert texts(report, "am", "target").tokens[0].per_word == 1


def test_images_phrases_and_boxes(tmp_path):
    dropped = (
        Dropped("f30k", "", "not_in_split", 5),
        Dropped("f30k", "en", "not_in_split", 25),
        Dropped("f30k", "", "part:box_outside", 3),
    )
    folder = write(tmp_path / "s", [image(i) for i in range(9)], dropped)
    report = inspect_folder(ShardFolder(folder))
    images = report.images
    assert images is not None
    assert images.formats == {"jpg": 9}
    assert (images.width.median, images.height.median) == (400, 300)
    assert images.captions == {"de": 5 / 9, "en": 2}
    assert images.bare == {"de": 4, "en": 0}
    assert images.phrases == {"animals": 9, "clothing": 9}
    assert images.unplaced == {"clothing": 9}
    assert images.boxes == {"animals": 18}
    assert images.unnamed == 9
    assert (account(report, "f30k", "").kept, account(report, "f30k", "").dropped) == (9, {"not_in_split": 5})
    assert account(report, "f30k", "en").kept == 18
    assert [(part.reason, part.number) for part in report.parts] == [("box_outside", 3)]
    assert all("part:" not in reason for row in report.accounts for reason in row.dropped)
    assert texts(report, "de", "caption").read == 5
    assert report.shown[0].boxes == 3


def test_reports_are_the_same_every_time_and_survive_json(tmp_path):
    folder = write(tmp_path / "s", [*pairs(60), *pairs(60, "de")])
    reports = [inspect_folder(ShardFolder(folder), limit=20, samples=3, seed=4) for _ in range(2)]
    assert reports[0] == reports[1]
    assert Inspection.model_validate_json(reports[0].model_dump_json()) == reports[0]
    other = inspect_folder(ShardFolder(folder), limit=20, samples=3, seed=5)
    assert [sample.key for sample in other.shown] != [sample.key for sample in reports[0].shown]
    wider = inspect_folder(ShardFolder(folder), limit=60, samples=3, seed=4)
    assert wider.shown == reports[0].shown, "samples shown do not depend on how many are read"


def test_captions_of_a_language_that_no_image_read_has(tmp_path):
    report = inspect_folder(ShardFolder(write(tmp_path / "s", [image(i) for i in (1, 3, 5, 7, 8)])), limit=1)
    assert {row.language for row in report.languages} == {"de", "en"}
    assert report.images is not None
    assert report.images.read == 1
    assert account(report, "f30k", "").kept == 5
    assert (account(report, "f30k", "de").kept, account(report, "f30k", "en").kept) == (1, 10)
    assert all(row.exact for row in report.accounts)


def test_numbers_out_of_range_and_damage_are_explained(tmp_path):
    folder = write(tmp_path / "s", pairs(10))
    with pytest.raises(ConfigError, match="--limit is 0"):
        inspect_folder(ShardFolder(folder), limit=0)
    with pytest.raises(ConfigError, match="--samples is -1"):
        inspect_folder(ShardFolder(folder), samples=-1)
    tar = folder / "bitext-sw-000000.tar"
    data = bytearray(tar.read_bytes())
    data[600] ^= 1
    tar.write_bytes(data)
    with pytest.raises(ShardError, match=r"bitext-sw-000000.tar, sample 0: the bytes differ"):
        inspect_folder(ShardFolder(folder))


def test_negatives_are_a_side_of_their_own_and_no_records(tmp_path):
    listed = [replace(pair, negatives=("a b", "c")) for pair in pairs(4)]
    report = inspect_folder(ShardFolder(write(tmp_path / "s", [*listed, *pairs(3, "de")])))
    found = texts(report, "sw", "negative")
    assert (found.read, found.words.most, found.words.mean) == (8, 2, 1.5)
    assert {row.language: (row.samples, row.read) for row in report.languages} == {"de": (3, 3), "sw": (4, 4)}
    assert account(report, "news", "sw").kept == 4
    assert {row.side for row in report.texts if row.language == "de"} == {"english", "target"}
    assert all(text.side != "negative" for shown in report.shown for text in shown.texts)
