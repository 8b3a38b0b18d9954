import tracemalloc

import pytest

from optical_scale.corpora.moses import MosesCorpus
from optical_scale.errors import CorpusError
from optical_scale.records import TextPair


def corpus(folder, source, target, language="sw", name="news"):
    (folder / "x.en").write_text(source, encoding="utf-8", newline="")
    (folder / "x.sw").write_text(target, encoding="utf-8", newline="")
    return MosesCorpus(name, folder / "x.en", folder / "x.sw", language)


def test_pairs_follow_the_lines(tmp_path):
    pairs = corpus(tmp_path, "one\n two \nthree\u2028still\n", "moja\r\nmbili\r\ntatu", name="News.2020")
    assert pairs.count() == 3
    assert list(pairs) == [
        TextPair("news_2020-sw-00000001", "sw", "one", "moja", "News.2020"),
        TextPair("news_2020-sw-00000002", "sw", "two", "mbili", "News.2020"),
        TextPair("news_2020-sw-00000003", "sw", "three\u2028still", "tatu", "News.2020"),
    ]


def test_blank_sides_keep_the_numbering(tmp_path):
    assert [pair.key[-1] for pair in corpus(tmp_path, "a\n\nc\n", "x\ny\nz\n")] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("a\nb\nc\n", "x\n", r"x\.en has 3 lines, .*x\.sw has 1; .*x\.en:2 has no partner: 'b'"),
        ("a\n", "x\ny\n", r"x\.en has 1 lines, .*x\.sw has 2; .*x\.sw:2 has no partner: 'y'"),
    ],
)
def test_unequal_lengths_are_refused_before_the_first_pair(tmp_path, source, target, message):
    with pytest.raises(CorpusError, match=message):
        next(iter(corpus(tmp_path, source, target)))


@pytest.mark.parametrize(("source", "target", "empty"), [("", "x\n", "x.en"), ("a\n", "", "x.sw"), ("", "", "x.en")])
def test_empty_file(tmp_path, source, target, empty):
    with pytest.raises(CorpusError, match=f"{empty}: the file is empty"):
        corpus(tmp_path, source, target).count()


def test_language_is_checked_at_once(tmp_path):
    with pytest.raises(CorpusError, match="write `sw`"):
        corpus(tmp_path, "a\n", "b\n", language="SW")


def test_memory_does_not_grow_with_the_file(tmp_path):
    text = ("word " * 20 + "\n") * 40_000  # 4 MB a side
    pairs = corpus(tmp_path, text, text)
    tracemalloc.start()
    assert sum(1 for _ in pairs) == 40_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3_000_000
