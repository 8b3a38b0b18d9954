"""The frozen encoder: replicated or ZeRO-3-sharded, never in an optimizer, never in a checkpoint."""

from typing import Any, Protocol

import torch
from torch import nn

from optical_scale.backbones.encoder import Encoder, model_inputs, token_states
from optical_scale.batch import PatchBatch, TokenBatch, TokenStates


class Teacher(Protocol):
    """Who gives token states without gradient: the engine, or what it has left on disk."""

    @property
    def width(self) -> int:
        """Of the token vectors."""
        ...

    def encode(self, batch: TokenBatch | PatchBatch) -> TokenStates:
        """Token states of a batch."""
        ...

    def resident_parameters(self) -> int:
        """Parameter elements that this rank keeps between calls."""
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
        """Token states of a batch; every rank must call this equally often when the teacher is sharded."""
        batch = batch.to(self.device)
        return token_states(self._forward(**model_inputs(batch)), batch, self.module.readout)
