"""A smaller or re-vocabularied network cut from pretrained weights."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import torch
from torch import nn
from transformers import PreTrainedTokenizerFast

from optical_scale.backbones.lexicon import expected_vectors, learn_lexicon
from optical_scale.errors import ConfigError


def keep_layers(backbone: nn.Module, layers: Sequence[int]) -> None:
    """Keep the given encoder layers, in the given order, in place.

    Raises:
        ConfigError: an index outside the network, or a network whose layers are not at ``encoder.layer``.
    """
    stack = getattr(getattr(backbone, "encoder", None), "layer", None)
    if not isinstance(stack, nn.ModuleList):
        raise ConfigError(f"backbone.layers: {type(backbone).__name__} has no encoder.layer list to select from")
    wrong = [index for index in layers if not 0 <= index < len(stack)]
    if wrong or not layers:
        raise ConfigError(f"backbone.layers: found {list(layers)}; expected indices from 0 to {len(stack) - 1}")
    backbone.encoder.layer = nn.ModuleList(stack[index] for index in layers)  # type: ignore[union-attr]
    backbone.config.num_hidden_layers = len(layers)  # type: ignore[union-attr]


def set_dropout(backbone: nn.Module, probability: float) -> None:
    """Set every dropout layer and the configuration's probabilities, in place."""
    for module in backbone.modules():
        if isinstance(module, nn.Dropout):
            module.p = probability
    config = backbone.config
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
        if hasattr(config, name):
            setattr(config, name, probability)


def match_vocabulary(backbone: nn.Module, old: PreTrainedTokenizerFast, new: PreTrainedTokenizerFast) -> None:
    """Replace the input embeddings by ones for the tokenizer ``new``, in place.

    Each piece starts from the mean of the vectors that ``old`` gives its text, special tokens from their counterpart,
    pieces without text from the mean of all vectors.
    """
    table: nn.Embedding = backbone.get_input_embeddings()  # type: ignore[operator]
    with torch.no_grad():
        weights = table.weight.detach()
        fresh = weights.mean(0).repeat(len(new), 1)
        counterparts = {
            getattr(new, f"{role}_token_id"): getattr(old, f"{role}_token_id")
            for role in ("cls", "sep", "pad", "unk", "mask")
        }
        for piece, index in new.get_vocab().items():
            if index in counterparts:
                if counterparts[index] is not None:
                    fresh[index] = weights[counterparts[index]]
                continue
            text = new.convert_tokens_to_string([piece]).strip()
            ids = [i for i in old(text, add_special_tokens=False)["input_ids"] if i != old.unk_token_id] if text else []
            if ids:
                fresh[index] = weights[ids].mean(0)
        replacement = nn.Embedding(len(new), fresh.shape[1], padding_idx=new.pad_token_id, _weight=fresh)
    backbone.set_input_embeddings(replacement)  # type: ignore[operator]
    config = backbone.config
    config.vocab_size = len(new)  # type: ignore[union-attr]
    config.pad_token_id = new.pad_token_id  # type: ignore[union-attr]


def translate_vocabulary(
    backbone: nn.Module,
    old: PreTrainedTokenizerFast,
    new: PreTrainedTokenizerFast,
    pairs: Iterable[tuple[str, str]],
    *,
    max_tokens: int,
) -> None:
    """Like :func:`match_vocabulary`, but pieces seen in ``pairs`` start from the vectors of their translations.

    A piece s starts from sum_t p(t | s) E_t with p from :func:`~.lexicon.learn_lexicon`. Takes seconds for 100,000
    pairs.

    Args:
        backbone: changed in place.
        old: its tokenizer, which reads the English side.
        new: the tokenizer to come, which reads the other side.
        pairs: English text and its translation, in an order that is the same on every rank.
        max_tokens: longer texts are cut.
    """
    table: nn.Embedding = backbone.get_input_embeddings()  # type: ignore[operator]
    lexicon = learn_lexicon(_ids(pairs, old, new, max_tokens))
    pieces_S, vectors_SD = expected_vectors(lexicon, table.weight.detach())
    match_vocabulary(backbone, old, new)
    fresh: nn.Embedding = backbone.get_input_embeddings()  # type: ignore[operator]
    with torch.no_grad():
        fresh.weight[pieces_S] = vectors_SD


def _ids(
    pairs: Iterable[tuple[str, str]], old: PreTrainedTokenizerFast, new: PreTrainedTokenizerFast, max_tokens: int
) -> Iterator[tuple[list[int], list[int]]]:
    """Ids of both sides without special tokens and unknown pieces."""
    rest = iter(pairs)
    while rows := list(islice(rest, 1024)):
        sides = [
            tokenizer(list(texts), add_special_tokens=False, truncation=True, max_length=max_tokens)["input_ids"]
            for tokenizer, texts in zip((old, new), zip(*rows, strict=True), strict=True)
        ]
        for source, target in zip(*sides, strict=True):
            yield [i for i in source if i != old.unk_token_id], [i for i in target if i != new.unk_token_id]
