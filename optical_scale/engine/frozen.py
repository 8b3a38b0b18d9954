"""Frozen parameters by name and hash: a checkpoint says which values its trained parameters belong to."""

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from optical_scale.errors import CheckpointError

FROZEN_FILE = "frozen.json"


@torch.no_grad()
def frozen_digests(module: nn.Module) -> dict[str, str]:
    """SHA-256 of every frozen parameter's values as fp32; all ranks enter together.

    At ZeRO stage 3 one parameter at a time is gathered.
    """
    found = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            with _whole(parameter):
                values = parameter.detach().flatten().to(device="cpu", dtype=torch.float32)
                found[name] = hashlib.sha256(values.numpy().data).hexdigest()
    return found


def read_frozen(folder: Path) -> dict[str, str]:
    """The digests recorded in DeepSpeed's folder of a checkpoint; empty if there is no record.

    Raises:
        CheckpointError: the file cannot be read.
    """
    path = folder / FROZEN_FILE
    try:
        recorded: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}; copy it again, or use another checkpoint") from error
    return recorded


def check_frozen(folder: Path, found: dict[str, str]) -> None:
    """Compare with what ``folder`` records.

    Raises:
        CheckpointError: a frozen parameter has other values than when the checkpoint was written.
    """
    recorded = read_frozen(folder)
    if changed := [name for name, digest in recorded.items() if found.get(name) != digest]:
        raise CheckpointError(
            f"{folder}: frozen parameters have other values than when it was written, first {changed[0]}; "
            "start from the same `pretrained` folder as then"
        )


def _whole(parameter: nn.Parameter) -> Any:
    if not hasattr(parameter, "ds_id"):
        return contextlib.nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters([parameter])
