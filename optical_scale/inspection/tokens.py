"""Counting the tokens of texts, as they are before any limit."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from optical_scale.errors import ConfigError


class Counts(NamedTuple):
    """Of each of B texts: all tokens, those that are not special, and unknown ones among these."""

    all_B: NDArray[np.int64]
    plain_B: NDArray[np.int64]
    unknown_B: NDArray[np.int64]


class TokenCounter:
    """Counts tokens without truncation and padding.

    Args:
        name: what it is called in reports.
        tokenizer: it is changed: truncation and padding are switched off.
    """

    def __init__(self, name: str, tokenizer: Tokenizer) -> None:
        self.name = name
        self._tokenizer = tokenizer
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self.pieces: int = tokenizer.get_vocab_size(with_added_tokens=True)
        model = json.loads(tokenizer.to_str())["model"]
        named = model.get("unk_token")  # unigram models have a number, the others a piece, some neither
        self._unknown = model.get("unk_id") if named is None else tokenizer.token_to_id(named)

    def __call__(self, texts: Sequence[str]) -> Counts:
        """Count."""
        rows = self._tokenizer.encode_batch_fast(list(texts))
        special = [sum(row.special_tokens_mask) for row in rows]
        everything = np.array([len(row.ids) for row in rows], dtype=np.int64)
        # A post-processor never adds the unknown piece, so it is always part of the text.
        unknown = [0] * len(rows) if self._unknown is None else [row.ids.count(self._unknown) for row in rows]
        return Counts(everything, everything - np.array(special, dtype=np.int64), np.array(unknown, dtype=np.int64))


def load_counters(paths: Sequence[Path]) -> list[TokenCounter]:
    """Read tokenizers, each a folder as models have them or a ``tokenizer.json`` file.

    Raises:
        ConfigError: there is none at a path.
    """
    names = [path.parent.name if path.name == "tokenizer.json" else path.name for path in map(Path.absolute, paths)]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    return [TokenCounter(name, _load(path)) for name, path in zip(names, paths, strict=True)]


def _load(path: Path) -> Tokenizer:
    if path.is_dir():
        from optical_scale.backbones.tokenizers import TextTokenizer

        tokenizer: Tokenizer = TextTokenizer.load(path, max_tokens=1).tokenizer.backend_tokenizer
        return tokenizer
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise ConfigError(
            f"--tokenizer: {path} is no tokenizer ({error}); expected a folder of a model, or a tokenizer.json"
        ) from None
