"""Our call against transformers' own."""

import threading

import pytest
import torch

from optical_scale.backbones.tokenizers import TextTokenizer
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
