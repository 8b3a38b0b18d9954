import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from optical_scale.backbones.tokenizers import TextTokenizer
from optical_scale.errors import ConfigError
from optical_scale.inspection.tokens import TokenCounter, load_counters
from tests.support.corpus import write_tokenizer as write_unigram
from tests.unit.inspection.folders import write_tokenizer


def test_counts_agree_with_what_training_sees(tmp_path):
    write_unigram(tmp_path / "unigram")
    [counter] = load_counters([tmp_path / "unigram"])
    texts = ["", "badokiki lulu", "Ξ badoki", " ".join(["lubado"] * 300)]
    training = TextTokenizer.load(tmp_path / "unigram", max_tokens=100_000)
    counts = counter(texts)
    assert counts.all_B.tolist() == training.lengths(texts)
    assert counts.plain_B.tolist() == [length - 2 for length in training.lengths(texts)]
    assert counts.unknown_B.tolist()[:2] == [0, 0]
    assert counts.unknown_B[2] > 0
    assert (counter.name, counter.pieces) == ("unigram", len(training.tokenizer))


def test_a_file_and_names_that_would_be_equal(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder / "model").mkdir(parents=True)
        write_tokenizer(tmp_path / folder / "model" / "tokenizer.json")
    paths = [tmp_path / folder / "model" / "tokenizer.json" for folder in ("one", "two")]
    assert [counter.name for counter in load_counters(paths[:1])] == ["model"]
    assert [counter.name for counter in load_counters(paths)] == [str(path) for path in paths]


def test_a_tokenizer_without_an_unknown_piece():
    tokenizer = Tokenizer(models.BPE(vocab={"a": 0, "b": 1}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    counts = TokenCounter("bytes", tokenizer)(["ab a", ""])
    assert counts.all_B.tolist() == [3, 0]
    assert counts.unknown_B.tolist() == [0, 0]


def test_what_is_no_tokenizer(tmp_path):
    (tmp_path / "x.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "x.json", tmp_path / "missing.json"):
        with pytest.raises(ConfigError, match="is no tokenizer"):
            load_counters([path])
    with pytest.raises(ConfigError, match="holds no tokenizer"):
        load_counters([tmp_path / "empty"])
