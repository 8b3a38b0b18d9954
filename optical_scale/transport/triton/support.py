"""Whether the Triton kernels can run here; importable everywhere."""

import importlib.util
import os
from typing import Final

import torch

from optical_scale.errors import TransportError

TIERS: Final = ("triton", "triton_pairs", "triton_stored", "triton_tiles")


def interpreted() -> bool:
    """Whether Triton was told to interpret kernels on the CPU; it looks once, when the kernels are first imported."""
    return os.environ.get("TRITON_INTERPRET", "").strip().lower() in ("1", "true", "on", "yes", "y")


def unavailable(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why the kernels cannot run on tensors of this device and working dtype; None if they can."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed (pip install triton; CUDA builds of torch for Linux bring it)"
    if dtype != torch.float32:
        return f"the kernels compute in float32, the vectors are {dtype}"
    if interpreted():
        return None
    if device.type != "cuda":
        return f"the vectors are on {device}; Triton needs CUDA, or TRITON_INTERPRET=1 for its slow interpreter"
    if torch.version.hip is None and torch.cuda.get_device_capability(device) < (8, 0):
        major, minor = torch.cuda.get_device_capability(device)
        return f"the device has compute capability {major}.{minor}, the kernels need 8.0"
    return None


def require(backend: str, device: torch.device, dtype: torch.dtype) -> None:
    """Raise :class:`TransportError` if a forced Triton backend cannot run."""
    reason = unavailable(device, dtype)
    if reason is not None:
        raise TransportError(f"backend {backend!r} cannot run: {reason}; use backend='auto', 'dense' or 'blockwise'")
