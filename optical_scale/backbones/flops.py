"""How much a transformer computes, from its shape alone."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True, slots=True)
class Flops:
    """Floating-point operations of an encoder: two for every weight and token, and those of attention.

    Counted as in PaLM (Chowdhery et al. 2022, arXiv 2204.02311, appendix B): embeddings are looked up, not multiplied,
    and what activation checkpointing computes again does not count.

    Attributes:
        weights: elements that every token is multiplied with.
        trained: those of them that learn.
        layers: of attention.
        width: of the vectors between them.
        patches: vectors of an image; 0 for texts.
    """

    weights: int
    trained: int
    layers: int
    width: int
    patches: int = 0

    @classmethod
    def of(cls, encoder: nn.Module, patches: int = 0) -> "Flops":
        """Read them off an :class:`optical_scale.backbones.encoder.Encoder`, sharded or not."""
        config: Any = encoder.get_submodule("backbone").config
        looked_up = {id(p) for part in encoder.modules() if isinstance(part, nn.Embedding) for p in part.parameters()}
        sizes = [(_elements(p), p.requires_grad) for p in encoder.parameters() if id(p) not in looked_up]
        weights, trained = sum(size for size, _ in sizes), sum(size for size, learns in sizes if learns)
        return cls(weights, trained, config.num_hidden_layers, config.hidden_size, patches)

    def forward(self, lengths: Iterable[int]) -> float:
        """Reading sequences of so many tokens, padding left out."""
        tokens, squares = _sums(lengths)
        return 2.0 * self.weights * tokens + self._attention(squares)

    def backward(self, lengths: Iterable[int]) -> float:
        """Gradients of the inputs of all layers, and of the weights that learn."""
        tokens, squares = _sums(lengths)
        return 2.0 * (self.weights + self.trained) * tokens + 2 * self._attention(squares)

    def _attention(self, squares: int) -> float:
        return 4.0 * self.layers * self.width * squares


def _sums(lengths: Iterable[int]) -> tuple[int, int]:
    found = list(lengths)
    return sum(found), sum(length * length for length in found)


def _elements(parameter: nn.Parameter) -> int:
    """Also of a parameter that is partitioned, whose own shape is empty."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))
