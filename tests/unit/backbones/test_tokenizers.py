"""Our call against transformers' own."""

import string
import threading

import pytest
import torch
from transformers import AutoTokenizer, BertTokenizerFast

from optical_scale.backbones.encoder import EncoderContract
from optical_scale.backbones.tokenizers import TextTokenizer, punctuation
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
    with pytest.raises(ConfigError, match=r"bare has no padding token; name one of its tokens as pad_token"):
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


@pytest.fixture
def bert(tmp_path):
    names = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        *string.punctuation,
        "...",
        "##.",
        "。",
        "»",
        "؟",
        "€",
        "3",
        "a",
        "##a",
    ]
    (tmp_path / "vocab.txt").write_text("\n".join(names))
    BertTokenizerFast(str(tmp_path / "vocab.txt"), tokenize_chinese_chars=False).save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def test_punctuation_is_what_colbert_skips_in_every_script(bert):
    tokenizer = TextTokenizer.load(bert, 16).tokenizer
    found = {tokenizer.convert_ids_to_tokens(int(index)) for index in punctuation(tokenizer).nonzero()[0]}
    assert found == {*string.punctuation, "...", "##.", "。", "»", "؟"}


def test_blanks_are_no_punctuation(folder):
    tokenizer = TextTokenizer.load(folder, 16).tokenizer
    assert not punctuation(tokenizer)[tokenizer.convert_tokens_to_ids("▁")]


def test_masked_punctuation_keeps_every_text_a_token(bert):
    tokenize = TextTokenizer.load(bert, 8, "", "a: ", mask_punctuation=True)
    texts = ["a.a», (3) €!", ".", "?!", "", "a"]
    plain, masked = TextTokenizer.load(bert, 8)(texts), tokenize(texts)
    assert torch.equal(masked.ids_BT, plain.ids_BT)
    assert torch.equal(masked.attention_BT, plain.attention_BT)
    assert [tokenize.pieces(text) for text in texts] == [["a", "a"], ["."], ["?", "!"], ["[CLS]", "[SEP]"], ["a"]]
    assert [len(spans) for spans in tokenize.spans(texts)] == masked.mask_BT.sum(1).tolist()
    assert tokenize.spans(texts)[0] == [(0, 1), (2, 3)]
    rows = [masked.ids_BT[row][masked.attention_BT[row]].tolist() for row in range(len(texts))]
    alone = [tokenize([text]).mask_BT[0].tolist() for text in texts]
    assert alone == [masked.mask_BT[row][: len(rows[row])].tolist() for row in range(len(texts))]
    assert tokenize.for_passages()(["."]).mask_BT.tolist() == [[False, True, False, False, False]]
    # Counts and stored ids are the same with and without, so what was counted and stored serves both.
    assert tokenize.digest() == TextTokenizer.load(bert, 8).digest()


def test_an_unknown_mask_rule_is_refused(tmp_path):
    EncoderContract("text", mask_rule="vowels are excluded").write(tmp_path)
    with pytest.raises(ConfigError, match=r"encoder.json: mask rule 'vowels are excluded' is not known"):
        EncoderContract.read(tmp_path)
