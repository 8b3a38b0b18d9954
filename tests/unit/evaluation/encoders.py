"""Deterministic encoders for tests: a word's vector depends on nothing but the word and the seed."""

import hashlib
from collections.abc import Callable, Sequence

import torch

from optical_scale.batch import TokenStates

WIDTH = 16


def vector(word: str, seed: int = 0) -> torch.Tensor:
    digest = hashlib.blake2b(f"{seed}/{word}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
    return torch.randn(WIDTH, generator=generator)


def word_encoder(seed: int = 0) -> Callable[[Sequence[str] | Sequence[bytes]], TokenStates]:
    """Words to random vectors behind one special token; bytes are read as UTF-8; a prefix "xx:" is not seen."""

    def encode_batch(texts: Sequence[str] | Sequence[bytes]) -> TokenStates:
        decoded = [text.decode() if isinstance(text, bytes) else text for text in texts]
        words = [text.removeprefix("xx:").split() for text in decoded]
        longest = 1 + max(len(row) for row in words)
        x_BTD = torch.full((len(texts), longest, WIDTH), 7.0)  # padding must not matter
        attention_BT = torch.zeros(len(texts), longest, dtype=torch.bool)
        for b, row in enumerate(words):
            attention_BT[b, : 1 + len(row)] = True
            x_BTD[b, 0] = 0.0
            for t, word in enumerate(row, start=1):
                x_BTD[b, t] = vector(word, seed)
        mask_BT = attention_BT.clone()
        mask_BT[:, 0] = False
        return TokenStates(x_BTD, mask_BT, attention_BT)

    return encode_batch


def constant_encoder(texts: Sequence[str] | Sequence[bytes]) -> TokenStates:
    """A collapsed model: one vector for everything."""
    x_BTD = torch.linspace(-1, 1, WIDTH).expand(len(texts), 3, WIDTH)
    ones_BT = torch.ones(len(texts), 3, dtype=torch.bool)
    return TokenStates(x_BTD, ones_BT, ones_BT)
