"""How a model is laid out over processes: ZeRO stage, precision, offload."""

from pathlib import Path
from typing import Any, Literal

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from optical_scale.config.schema import Schema

Precision = Literal["fp32", "bf16", "fp16"]
Offload = Literal["none", "cpu", "nvme"]


class StudentEngine(Schema):
    """DeepSpeed settings of the trained model."""

    zero_stage: Literal[0, 1, 2, 3] = 3
    """0 replicates; 1 shards optimizer states, 2 also gradients, 3 also parameters."""
    precision: Precision = "fp32"
    """Arithmetic of forward and backward; the optimizer keeps fp32 master weights."""
    offload_optimizer: Offload = "none"
    """Where optimizer states live (cpu: stages 1 to 3, nvme: stage 3)."""
    offload_parameters: Offload = "none"
    """Where parameter shards rest between uses (stage 3)."""
    nvme: Path | None = None
    """Folder on a fast local disk, for offloading to `nvme`: 2 bytes a parameter, and 16 bytes a trained one."""
    update_elements: PositiveInt | None = None
    """Stage 3 updates so many elements at once, with `nvme` at about 20 bytes of memory each; null is a billion."""
    packed: bool = False
    """Encode the tokens of a batch one after another, without padding: BERT, RoBERTa and XLM-R of any size."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass instead of storing them."""
    persistent_parameters: NonNegativeInt = 10_000
    """Stage 3 keeps parameters of fewer elements on every rank instead of gathering them at each use."""
    bucket_elements: PositiveInt = 20_000_000
    """Elements gathered or reduced in one collective."""
    clip_gradient: PositiveFloat = 1.0
    """Largest L2 norm of the whole gradient."""
    deepspeed_extra: dict[str, Any] = {}
    """Merged last into the derived DeepSpeed configuration; may not contain keys that the fields above own."""


class TeacherEngine(Schema):
    """DeepSpeed settings of the frozen model."""

    zero_stage: Literal[0, 3] = 3
    """3 shards the parameters over all ranks; 0 keeps a replica on every rank."""
    precision: Precision = "fp32"
    """Arithmetic of the teacher's forward pass."""
    packed: bool = False
    """As for the student."""
    offload_parameters: Offload = "none"
    """Where parameter shards rest between uses (stage 3)."""
    nvme: Path | None = None
    """Folder on a fast local disk, for `offload_parameters: nvme`."""
    persistent_parameters: NonNegativeInt = 10_000
    """As for the student."""
