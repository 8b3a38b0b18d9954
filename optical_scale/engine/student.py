"""The trained encoder under DeepSpeed: owns loss scaling, the optimizer and the ZeRO shards."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional

from optical_scale.backbones.encoder import Encoder, model_inputs, token_states
from optical_scale.batch import PatchBatch, TokenBatch, TokenStates
from optical_scale.engine import offloaded
from optical_scale.engine.frozen import FROZEN_FILE, check_frozen, frozen_digests
from optical_scale.errors import CheckpointError, EngineError
from optical_scale.runtime.files import write_json

TAG = "student"


class Update(NamedTuple):
    """What one optimizer update reports.

    Attributes:
        gradient_norm: before clipping.
        learning_rate: as used.
        finite: False if the gradient was not, on any rank, so that the weights stay as they were on all of them. Always
            True in fp16, where this happens in sound runs too and only lowers the loss scale.
    """

    gradient_norm: float
    learning_rate: float
    finite: bool = True


class StudentEngine:
    """Encode, accumulate gradients, update, save.

    Args:
        module: an encoder with equal weights on all ranks; this object takes it over.
        deepspeed_config: derived configuration without optimizer and scheduler.
        device: of this rank.
        learning_rate: peak value.
        factor: multiplies the peak at update number 0, 1, ….
        embedding_rate: multiplies the learning rate of the input embeddings.
        weight_decay: decoupled, on matrices other than the input embeddings.
        betas: of AdamW.
        activation_checkpointing: recompute activations in backward.
    """

    def __init__(
        self,
        module: Encoder,
        deepspeed_config: dict[str, Any],
        device: torch.device,
        *,
        learning_rate: float,
        factor: Callable[[int], float],
        embedding_rate: float = 1.0,
        weight_decay: float,
        betas: tuple[float, float],
        activation_checkpointing: bool = False,
    ) -> None:
        import deepspeed

        if activation_checkpointing:
            module.backbone.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
        groups = _parameter_groups(module, learning_rate, embedding_rate, weight_decay)
        # Fused: one pass over weights and moments, five times as fast on a CPU as the loop over tensors.
        optimizer = torch.optim.AdamW(groups, lr=learning_rate, betas=betas, fused=True)
        self.module = module
        self.device = device
        self._frozen: dict[str, str] | None = None
        self._engine, _, _, self._schedule = deepspeed.initialize(
            model=module,
            optimizer=optimizer,
            lr_scheduler=lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, factor),
            config=deepspeed_config,
        )
        self._world_size: int = self._engine.world_size
        # XLM-R counts positions by the padding id, so padding must carry it.
        self._pad_id: int = getattr(module.backbone.config, "pad_token_id", None) or 0

    def encode(self, batch: TokenBatch | PatchBatch) -> TokenStates:
        """Token states of a batch; every rank must call this equally often."""
        batch = batch.to(self.device)
        found = self._engine(**model_inputs(batch))
        return token_states(found, batch, self.module.readout, self.module.layers)

    def encode_both(self, source: TokenBatch, target: TokenBatch) -> tuple[TokenStates, TokenStates]:
        """Both sides of a pair in one forward pass, so that ZeRO-3 gathers each parameter once."""
        length = max(source.ids_BT.shape[1], target.ids_BT.shape[1])
        both = TokenBatch(
            torch.cat([_pad(source.ids_BT, length, self._pad_id), _pad(target.ids_BT, length, self._pad_id)]),
            torch.cat([_pad(source.attention_BT, length), _pad(target.attention_BT, length)]),
            torch.cat([_pad(source.mask_BT, length), _pad(target.mask_BT, length)]),
        )
        if source.idf_BT is not None and target.idf_BT is not None:
            both = replace(both, idf_BT=torch.cat([_pad(source.idf_BT, length), _pad(target.idf_BT, length)]))
        states = self.encode(both)
        return states.first(len(source)), states.part(slice(len(source), None))

    def train(self, training: bool = True) -> None:
        """Switch dropout on or off."""
        self._engine.train(training)

    def backward(self, loss_sum: Tensor, global_weight: float, *, last: bool = True) -> None:
        """Accumulate the gradient of ``loss_sum`` / ``global_weight``, the latter over all ranks and micro-batches.

        ``last`` says that the weights are updated after this micro-batch, because under a budget the number of
        micro-batches varies. DeepSpeed averages gradients over ranks, so the world size is multiplied back; its own
        division by the accumulation steps is switched off.
        """
        self._engine.set_gradient_accumulation_boundary(last)
        self._engine.backward(loss_sum * (self._world_size / global_weight), scale_wrt_gas=False)

    def finish_micro_batch(self) -> Update | None:
        """Close a micro-batch; at the accumulation boundary update the weights and report it."""
        boundary = self._engine.is_gradient_accumulation_boundary()
        learning_rate = float(self._schedule.get_last_lr()[0])
        if not boundary:
            self._engine.step()
            return None
        # Stage 0 in fp32 has no DeepSpeed optimizer around it and reports no norm; its gradients are whole, averaged.
        gradients = [p.grad for p in self.module.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients) if gradients else torch.tensor(torch.nan)
        bare = isinstance(self._engine.optimizer, torch.optim.Optimizer)
        if bare and not torch.isfinite(norm):  # DeepSpeed's own optimizers look by themselves
            self._engine.zero_grad()
            return Update(float(norm), learning_rate, finite=False)
        self._engine.step()
        reported = self._engine.get_global_grad_norm()
        finite = bool(self._engine._step_applied) or self._engine.fp16_enabled()
        return Update(float(norm if reported is None else reported), learning_rate, finite)

    def resident_parameters(self) -> int:
        """Parameter elements that this rank keeps between steps."""
        return sum(p.ds_tensor.numel() if hasattr(p, "ds_tensor") else p.numel() for p in self.module.parameters())

    def save(self, folder: Path) -> None:
        """Write this rank's share of weights and optimizer below ``folder``; all ranks enter together."""
        if not self._engine.save_checkpoint(str(folder), tag=TAG, save_latest=False):
            raise EngineError(f"DeepSpeed could not write a checkpoint to {folder}; see its messages above")
        if self._frozen is None:
            self._frozen = frozen_digests(self.module)
        if dist.get_rank() == 0:
            write_json(folder / TAG / FROZEN_FILE, self._frozen)
            if self._engine.zero_nvme_offload_optimizer():
                offloaded.write_index(folder / TAG, self._engine.optimizer)

    def load(self, folder: Path) -> None:
        """Restore what :meth:`save` wrote, on the same number of ranks, or its universal form on any.

        Raises:
            CheckpointError: DeepSpeed finds no checkpoint there, or frozen parameters have other values than then.
        """
        universal = self._engine.load_universal_checkpoint()
        adamw = self._engine.optimizer.optimizer if universal else None
        settings = [dict(group) for group in adamw.param_groups] if adamw else []
        if offloaded.uses_files(self._engine):
            path = offloaded.load(self._engine, folder, TAG)
        else:
            # The universal form has weights in folders of their own, and no others.
            path, _ = self._engine.load_checkpoint(str(folder), tag=TAG, load_module_strict=not universal)
        if path is None:
            raise CheckpointError(f"{folder} holds no DeepSpeed checkpoint named {TAG!r}")
        self._frozen = frozen_digests(self.module)
        check_frozen(folder / TAG, self._frozen)
        rates = _follow(self._schedule)
        if adamw:
            _mend(adamw, settings, rates)

    def close(self) -> None:
        """Release hooks and buffers."""
        self._engine.destroy()


def _follow(schedule: torch.optim.lr_scheduler.LambdaLR) -> list[float]:
    """Give the next step the learning rate of this run's schedule, not the stored one: its length may have changed."""
    rates = [
        float(base) * factor(schedule.last_epoch)
        for base, factor in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)
    ]
    for group, rate in zip(schedule.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    schedule._last_lr = list(rates)
    return rates


def _mend(adamw: torch.optim.Optimizer, settings: list[dict[str, Any]], rates: list[float]) -> None:
    """Undo what DeepSpeed 0.19.8 gets wrong when it loads a universal checkpoint at ZeRO stage 3.

    It gives every group the weight decay and learning rate of the first one, and all parameters one step counter, which
    AdamW then advances once per parameter group.
    """
    for group, before, rate in zip(adamw.param_groups, settings, rates, strict=True):
        group.update({name: value for name, value in before.items() if name != "params"}, lr=rate)
    for state in adamw.state.values():
        if isinstance(state.get("step"), Tensor):
            state["step"] = state["step"].clone()


def _parameter_groups(
    module: nn.Module, learning_rate: float, embedding_rate: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Matrices decay; biases, normalisation weights and input embeddings do not, the last with a rate of their own.

    An embedding row learns only when its token occurs, so new vocabularies need larger steps than matrices do.
    """
    table = module.backbone.get_input_embeddings()  # type: ignore[union-attr, operator]
    tokens = list(table.parameters()) if isinstance(table, nn.Embedding) else []
    own = {id(parameter) for parameter in tokens}
    rest = [p for p in module.parameters() if p.requires_grad and id(p) not in own]
    groups = [
        {"params": [p for p in rest if _dimensions(p) > 1], "weight_decay": weight_decay},
        {"params": [p for p in rest if _dimensions(p) <= 1], "weight_decay": 0.0},
        {"params": [p for p in tokens if p.requires_grad], "weight_decay": 0.0, "lr": learning_rate * embedding_rate},
    ]
    return [group for group in groups if group["params"]]


def _dimensions(parameter: nn.Parameter) -> int:
    """Also of a parameter that was partitioned before, whose own shape is empty."""
    return len(getattr(parameter, "ds_shape", parameter.shape))


def _pad(tensor_BT: Tensor, length: int, value: int = 0) -> Tensor:
    return functional.pad(tensor_BT, (0, length - tensor_BT.shape[1]), value=value)
