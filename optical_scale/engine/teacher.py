"""The frozen encoder: replicated or ZeRO-3-sharded, never in an optimizer, never in a checkpoint."""

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from optical_scale.backbones.encoder import Encoder, model_inputs, token_states
from optical_scale.batch import PatchBatch, TokenBatch, TokenStates


class Teacher(Protocol):
    """Who gives token states without gradient: the engine, or what it has left on disk."""

    def encode(self, batch: TokenBatch | PatchBatch) -> TokenStates:
        """Token states of a batch."""
        ...

    def resident_parameters(self) -> int:
        """Parameter elements that this rank keeps between calls."""
        ...

    @property
    def width(self) -> int:
        """Of the token vectors."""
        ...


class TeacherEngine:
    """Encodes without gradient.

    Args:
        module: an encoder with equal weights on all ranks; this object takes it over.
        deepspeed_config: derived configuration with stage 0 or 3 and no optimizer.
        device: of this rank.
    """

    def __init__(self, module: Encoder, deepspeed_config: dict[str, Any], device: torch.device) -> None:
        import deepspeed

        module.eval().requires_grad_(False)
        self.device = device
        if deepspeed_config["zero_optimization"]["stage"] == 3:
            self._forward: nn.Module = deepspeed.initialize(model=module, config=deepspeed_config)[0]
        else:
            # DeepSpeed adds nothing to a replica without optimizer.
            dtype = torch.bfloat16 if deepspeed_config["bf16"]["enabled"] else torch.float32
            dtype = torch.float16 if deepspeed_config["fp16"]["enabled"] else dtype
            self._forward = module.to(device=device, dtype=dtype)
        self._forward.eval()
        self.module = module

    @property
    def width(self) -> int:
        """Of the token vectors."""
        return self.module.width

    def resident_parameters(self) -> int:
        """Parameter elements that this rank keeps between forward passes."""
        return sum(p.ds_tensor.numel() if hasattr(p, "ds_tensor") else p.numel() for p in self.module.parameters())

    @torch.no_grad()
    def encode(self, batch: TokenBatch | PatchBatch) -> TokenStates:
        """Token states of a batch, in which equal texts are encoded once, as those of data in several languages are.

        Every rank must call this equally often when the teacher is sharded.
        """
        distinct, places_B = _distinct(batch) if isinstance(batch, TokenBatch) else (batch, None)
        found = self._forward(**model_inputs(distinct.to(self.device)))
        found = found if isinstance(found, tuple) else (found,)
        if places_B is not None:
            found = tuple(x_BTD[places_B] for x_BTD in found)
        return token_states(found, batch.to(self.device), self.module.readout, self.module.layers)


def _distinct(batch: TokenBatch) -> tuple[TokenBatch, Tensor | None]:
    """The texts of a batch without repetitions, and where each row is among them; None if there are none."""
    first: dict[bytes, int] = {}
    rows = batch.ids_BT.masked_fill(~batch.attention_BT, -1).cpu().numpy()
    places = [first.setdefault(row.tobytes(), len(first)) for row in rows]
    if len(first) == len(places):
        return batch, None
    places_B = torch.tensor(places)
    firsts = np.unique(places, return_index=True)[1]
    return batch.map(lambda tensor_BT: tensor_BT[firsts]), places_B
