"""Two trained encoders in one run: a text tower and a vision tower, each with an optimizer of its own.

A step belongs to one tower on all ranks, so that the same networks gather and reduce everywhere. The other tower is
left alone: its moments do not decay and its schedule does not advance, as if it were trained in a run of its own.
"""

from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from optical_scale.batch import PatchBatch, TokenBatch, TokenStates
from optical_scale.engine.student import StudentEngine, Update

VISION = "vision"
"""Folder of the second tower, below that of the first."""


class Student(Protocol):
    """What a training asks of the trained side, of one tower or two; see :class:`StudentEngine`."""

    device: torch.device

    def encode(self, batch: TokenBatch | PatchBatch) -> TokenStates:
        """Token states of a batch."""

    def encode_both(self, source: TokenBatch, target: TokenBatch) -> tuple[TokenStates, TokenStates]:
        """Both sides of a pair of texts."""

    def train(self, training: bool = True) -> None:
        """Switch dropout on or off."""

    def backward(self, loss_sum: Tensor, global_weight: float, *, last: bool = True) -> None:
        """Accumulate a gradient."""

    def finish_micro_batch(self) -> Update | None:
        """Close a micro-batch."""

    def resident_parameters(self) -> int:
        """Parameter elements that this rank keeps between steps."""

    def save(self, folder: Path) -> None:
        """Write this rank's share."""

    def load(self, folder: Path) -> None:
        """Restore it."""

    def close(self) -> None:
        """Release hooks and buffers."""


class TwoTowers:
    """Texts go to one engine, images to the other; gradients go to the one that encoded last.

    Args:
        text: reads :class:`TokenBatch`.
        vision: reads :class:`PatchBatch`.
    """

    def __init__(self, text: StudentEngine, vision: StudentEngine) -> None:
        self.text = text
        self.vision = vision
        self.device = text.device
        self._turn = text

    def encode(self, batch: TokenBatch | PatchBatch) -> TokenStates:
        """Token states of a batch by the tower that reads its kind; all ranks bring the same kind."""
        self._turn = self.vision if isinstance(batch, PatchBatch) else self.text
        return self._turn.encode(batch)

    def encode_both(self, source: TokenBatch, target: TokenBatch) -> tuple[TokenStates, TokenStates]:
        """Both sides of a pair of texts."""
        self._turn = self.text
        return self.text.encode_both(source, target)

    def train(self, training: bool = True) -> None:
        """Switch dropout of both on or off."""
        self.text.train(training)
        self.vision.train(training)

    def backward(self, loss_sum: Tensor, global_weight: float, *, last: bool = True) -> None:
        """Accumulate the gradient of the tower that encoded last."""
        self._turn.backward(loss_sum, global_weight, last=last)

    def finish_micro_batch(self) -> Update | None:
        """Close its micro-batch; at the boundary update it."""
        return self._turn.finish_micro_batch()

    def resident_parameters(self) -> int:
        """Of both."""
        return self.text.resident_parameters() + self.vision.resident_parameters()

    def save(self, folder: Path) -> None:
        """Write the text tower as if it were alone, and the other below ``vision/``."""
        self.text.save(folder)
        self.vision.save(folder / VISION)

    def load(self, folder: Path) -> None:
        """Restore both.

        Raises:
            CheckpointError: one of them is not there.
        """
        self.text.load(folder)
        self.vision.load(folder / VISION)

    def close(self) -> None:
        """Release both."""
        self.text.close()
        self.vision.close()
