"""Our call against transformers' own."""

import threading

import pytest
import torch
from transformers import AutoTokenizer, BertTokenizerFast

from optical_scale.backbones.tokenizers import TextTokenizer
from optical_scale.errors import ConfigError
from tests.support.corpus import write_tokenizer

TEXTS = ["", "sentence number 1", "x" * 99, "sentensi ya pili, sentence and sentence again " * 3, "  two  spaces "]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer") / "t"
    write_tokenizer(folder)
    return folder


@pytest.mark.parametrize("prefix", ["", "query: "])
@pytest.mark.parametrize("max_tokens", [4, 12, 64])
def test_as_transformers_tokenises(folder, prefix, max_tokens):
    tokenize = TextTokenizer.load(folder, max_tokens, prefix)
    batch = tokenize(TEXTS)
    theirs = tokenize.tokenizer(
        [prefix + text for text in TEXTS],
        truncation=True,
        max_length=max_tokens,
        padding=True,
        padding_side="right",
        return_tensors="pt",
        return_special_tokens_mask=True,
    )
    assert torch.equal(batch.ids_BT, theirs["input_ids"])
    assert torch.equal(batch.attention_BT, theirs["attention_mask"].bool())
    some_B = batch.mask_BT.ne(batch.attention_BT).any(1)
    expected = theirs["attention_mask"].bool() & ~theirs["special_tokens_mask"].bool()
    assert torch.equal(batch.mask_BT[some_B], expected[some_B])
    assert tokenize.lengths(TEXTS) == theirs["attention_mask"].sum(1).tolist()


def test_a_tokenizer_without_padding_and_a_folder_without_any(folder, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path / "bare")
    with pytest.raises(ConfigError, match=r"bare must be a fast tokenizer with a padding token"):
        TextTokenizer.load(tmp_path / "bare", 8)
    with pytest.raises(ConfigError, match=r"holds no tokenizer that transformers can load"):
        TextTokenizer.load(tmp_path, 8)


def test_threads_may_share_one(folder):
    tokenize = TextTokenizer.load(folder, 16)
    expected = tokenize(TEXTS * 20)
    failures = []

    def work(texts):
        for _ in range(30):
            try:
                tokenize(texts)
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=work, args=(TEXTS[: n + 2] * 20,)) for n in range(3)]
    for thread in threads:
        thread.start()
    work(TEXTS * 20)
    for thread in threads:
        thread.join()
    assert not failures
    assert torch.equal(tokenize(TEXTS * 20).ids_BT, expected.ids_BT)


def test_passages_have_a_prefix_of_their_own(folder):
    queries = TextTokenizer.load(folder, 16, "query: ", "passage: ")
    passages = queries.for_passages()
    assert torch.equal(passages(["dokiba"]).ids_BT, TextTokenizer.load(folder, 16, "passage: ")(["dokiba"]).ids_BT)
    assert torch.equal(queries(["dokiba"]).ids_BT, TextTokenizer.load(folder, 16, "query: ")(["dokiba"]).ids_BT)
    assert passages.digest() != queries.digest()
    same = TextTokenizer.load(folder, 16, "query: ")
    assert same.for_passages() is same


def test_a_marker_of_the_vocabulary_is_one_token(tmp_path):
    names = "[PAD] [UNK] [CLS] [SEP] [MASK] [unused0] [unused1] [ ] unused ##0 a b"
    (tmp_path / "vocab.txt").write_text("\n".join(names.split()))
    BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "bert")
    queries = TextTokenizer.load(tmp_path / "bert", 16, "[unused0] ", "[unused1] ")
    assert queries.pieces("a") == ["[unused0]", "a"]
    assert queries.for_passages()(["a b"]).ids_BT.tolist() == [[2, 6, 11, 12, 3]]
    assert queries(["a"]).mask_BT.tolist() == [[False, True, True, False]]
    queries.save(tmp_path / "saved")
    assert TextTokenizer.load(tmp_path / "saved", 16, "[unused0] ")(["b"]).ids_BT.tolist() == [[2, 5, 12, 3]]
