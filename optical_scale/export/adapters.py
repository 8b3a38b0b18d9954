"""Low-rank adapters merged into the matrices that they stand beside, a piece at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from optical_scale.engine.consolidate import StoredTensor
from optical_scale.errors import CheckpointError

_A, _B, _BASE = "lora_A.default.weight", "lora_B.default.weight", "base_layer."


@dataclass(frozen=True, slots=True)
class MergedTensor:
    """A frozen matrix W with its adapter, W + scale B A, under the name that W has without one.

    Attributes:
        base: W (O, I).
        a: (r, I).
        b: (O, r).
        scale: alpha / rank.
    """

    base: StoredTensor
    a: StoredTensor
    b: StoredTensor
    scale: float

    @property
    def names(self) -> tuple[str, ...]:
        """As in the backbone without adapters."""
        return _plain(self.base.names)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the matrix."""
        return self.base.shape

    @property
    def dtype(self) -> torch.dtype:
        """Of the pieces."""
        return self.base.dtype

    def pieces(self) -> Iterator[Tensor]:
        """The elements in order, flat; A and B are in memory meanwhile."""
        a_rI, b_Or = self.a.read(), self.b.read()
        width = self.shape[1]
        position = 0
        for piece in self.base.pieces():
            after = position + piece.numel()
            top, bottom = position // width, -(-after // width)
            update = (b_Or[top:bottom] @ a_rI).flatten()[position - top * width : after - top * width]
            yield torch.add(piece, update, alpha=self.scale)
            position = after


def merge_adapters(tensors: Sequence[StoredTensor], scale: float | None) -> list[StoredTensor | MergedTensor]:
    """The tensors of the backbone without adapters, in the same order.

    Args:
        tensors: as stored.
        scale: alpha / rank; None if there are no adapters.

    Raises:
        CheckpointError: there are adapters and no scale, or a scale and no adapters, or one lacks a half.
    """
    by_name = {stored.names[0]: stored for stored in tensors}
    adapted = any(name.endswith(_A) for name in by_name)
    if adapted != (scale is not None):
        raise CheckpointError(
            f"the checkpoint has {'' if adapted else 'no '}low-rank adapters, its config.yaml says "
            f"{'none' if adapted else 'otherwise'}; use the config.yaml that was saved with it"
        )
    if scale is None:
        return list(tensors)
    merged: list[StoredTensor | MergedTensor] = []
    for name, stored in by_name.items():
        layer = name.rpartition(_BASE)[0]
        if name.endswith((_A, _B)):
            continue
        if name == f"{layer}{_BASE}weight":
            try:
                merged.append(MergedTensor(stored, by_name[layer + _A], by_name[layer + _B], scale))
            except KeyError as error:
                raise CheckpointError(
                    f"the adapter of {layer.rstrip('.')} lacks {error}; use another checkpoint"
                ) from None
        else:
            merged.append(replace(stored, names=_plain(stored.names)))
    return merged


def _plain(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names as in the backbone without adapters."""
    return tuple(name.replace(_BASE, "") for name in names)
