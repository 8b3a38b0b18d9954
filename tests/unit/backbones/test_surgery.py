"""Cutting layers, changing dropout and exchanging the vocabulary of a small BERT."""

from collections.abc import Iterable, Sequence

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import nn
from torch.nn.functional import normalize
from transformers import PreTrainedTokenizerFast

from optical_scale.backbones.fresh import build_backbone
from optical_scale.backbones.surgery import keep_layers, match_vocabulary, set_dropout, translate_vocabulary
from optical_scale.errors import ConfigError

DICTIONARY = {"one": "uno", "two": "due", "red": "rosso", "dog": "cane", "cat": "gatto", "sees": "vede"}


def word_tokenizer(words: Iterable[str], first: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    special = ["<pad>", "<s>", "</s>", "<unk>", "<mask>"]
    model = WordLevel({word: i for i, word in enumerate([*first, *special, *words])}, unk_token="<unk>")
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = Whitespace()
    roles = {
        "pad_token": "<pad>",
        "cls_token": "<s>",
        "sep_token": "</s>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
    }
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles)


def pairs() -> list[tuple[str, str]]:
    generator = torch.Generator().manual_seed(0)
    words = list(DICTIONARY)
    rows = [torch.randperm(len(words), generator=generator)[:3].tolist() for _ in range(200)]
    return [(" ".join(words[i] for i in row), " ".join(DICTIONARY[words[i]] for i in reversed(row))) for row in rows]


@pytest.fixture(scope="module")
def tokenizers() -> tuple[PreTrainedTokenizerFast, PreTrainedTokenizerFast]:
    """English and other, with "dog" known to both and special tokens at other places."""
    return word_tokenizer(DICTIONARY), word_tokenizer(["dog", *DICTIONARY.values()], first=["zero"])


def bert(vocabulary: int = 60) -> nn.Module:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32}
    return build_backbone({"model_type": "bert", **sizes}, vocab_size=vocabulary).eval()


def table(backbone: nn.Module) -> torch.Tensor:
    return backbone.get_input_embeddings().weight.detach()  # type: ignore[operator]


def test_kept_layers_come_in_the_given_order() -> None:
    backbone = bert()
    before = list(backbone.encoder.layer)  # type: ignore[union-attr, arg-type]
    keep_layers(backbone, [3, 0])
    assert [id(layer) for layer in backbone.encoder.layer] == [id(before[3]), id(before[0])]  # type: ignore[union-attr]
    assert backbone.config.num_hidden_layers == 2  # type: ignore[union-attr]


@pytest.mark.parametrize("layers", [[], [4], [-1]])
def test_layers_outside_the_network_are_refused(layers: list[int]) -> None:
    with pytest.raises(ConfigError, match="expected indices from 0 to 3"):
        keep_layers(bert(), layers)


def test_without_dropout_training_mode_is_deterministic() -> None:
    backbone = bert().train()
    ids = torch.arange(5, 15)[None]
    assert not torch.equal(backbone(input_ids=ids)[0], backbone(input_ids=ids)[0])
    set_dropout(backbone, 0.0)
    assert torch.equal(backbone(input_ids=ids)[0], backbone(input_ids=ids)[0])
    assert backbone.config.hidden_dropout_prob == backbone.config.attention_probs_dropout_prob == 0.0  # type: ignore[union-attr]


def test_matching_gives_a_piece_the_mean_of_its_text(
    tokenizers: tuple[PreTrainedTokenizerFast, PreTrainedTokenizerFast],
) -> None:
    old, new = tokenizers
    backbone = bert(len(old))
    before = table(backbone).clone()
    match_vocabulary(backbone, old, new)
    after = table(backbone)
    assert after.shape == (len(new), 16)
    assert backbone.config.vocab_size == len(new)  # type: ignore[union-attr]
    assert torch.equal(after[new.sep_token_id], before[old.sep_token_id])
    dog = before[old.convert_tokens_to_ids("dog")]
    torch.testing.assert_close(after[new.convert_tokens_to_ids("dog")], dog)
    # A word that the old tokenizer does not know starts from the mean of all.
    torch.testing.assert_close(after[new.convert_tokens_to_ids("gatto")], before.mean(0))


def test_translation_moves_pieces_to_their_english_words(
    tokenizers: tuple[PreTrainedTokenizerFast, PreTrainedTokenizerFast],
) -> None:
    old, new = tokenizers
    backbone = bert(len(old))
    before = table(backbone).clone()
    translate_vocabulary(backbone, old, new, pairs(), max_tokens=16)
    after = table(backbone)

    english = normalize(before[old.convert_tokens_to_ids(list(DICTIONARY))], dim=1)
    other = normalize(after[new.convert_tokens_to_ids(list(DICTIONARY.values()))], dim=1)
    assert (other @ english.T).argmax(1).tolist() == list(range(len(DICTIONARY)))
    assert torch.equal(after[new.cls_token_id], before[old.cls_token_id])
    assert torch.equal(after[new.pad_token_id], before[old.pad_token_id])


def test_translation_without_pairs_is_matching(
    tokenizers: tuple[PreTrainedTokenizerFast, PreTrainedTokenizerFast],
) -> None:
    old, new = tokenizers
    matched, translated = bert(len(old)), bert(len(old))
    match_vocabulary(matched, old, new)
    translate_vocabulary(translated, old, new, [], max_tokens=16)
    assert torch.equal(table(matched), table(translated))
