"""ZeRO shards back to whole tensors, one at a time."""

import contextlib
import io
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from optical_scale.engine.ops import choose_accelerator
from optical_scale.engine.student import TAG
from optical_scale.errors import CheckpointError

_WHOLE = "mp_rank_00_model_states.pt"


def iterate_tensors(checkpoint: Path) -> Iterator[tuple[str, Tensor]]:
    """The parameters and persistent buffers of the student, by name, on the CPU.

    Floating-point tensors come as fp32: from the optimizer's master weights at ZeRO stages 1 to 3 (and where DeepSpeed
    shards a 16-bit stage 0), from the module at stage 0. Frozen parameters are included; tied names come each with the
    same values. The files stay memory-mapped, so that only the present tensor is in memory.

    Args:
        checkpoint: a step folder; DeepSpeed's files are in its ``student/``.

    Raises:
        CheckpointError: files are missing or damaged, or a tensor has no elements.
    """
    folder = checkpoint / TAG
    if not any(folder.glob("*_model_states.pt")):
        raise CheckpointError(f"{folder} holds no *_model_states.pt; expected what DeepSpeed's save_checkpoint writes")
    try:
        for name, lazy in _open(folder).items():
            tensor = lazy.contiguous()
            tensor = tensor.float() if tensor.is_floating_point() else tensor
            if tensor.numel() == 0:
                raise CheckpointError(f"{folder}: tensor {name} has 0 elements; the checkpoint lacks its values")
            yield name, tensor
    except (OSError, RuntimeError, ValueError, KeyError, IndexError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{folder} cannot be read: {_first_line(error)}; use another checkpoint") from error


def _open(folder: Path) -> Mapping[str, Any]:
    """Names to objects whose ``contiguous()`` is the whole tensor."""
    module: Mapping[str, Any] = {}
    if (folder / _WHOLE).is_file():
        # DeepSpeed pickles its own classes beside the tensors, so a checkpoint is as trusted as code.
        module = torch.load(folder / _WHOLE, map_location="cpu", mmap=True, weights_only=False)["module"]
    if not any(folder.glob("*_optim_states.pt")):
        if not module:
            raise CheckpointError(f"{folder} has no *_optim_states.pt files, which hold the weights at ZeRO stage 3")
        return module
    choose_accelerator()
    # DeepSpeed's converter reports by print, and standard output belongs to the user's pipe.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

        masters = get_fp32_state_dict_from_zero_checkpoint(str(folder.parent), tag=TAG, lazy_mode=True)
    # DeepSpeed's converter leaves out the frozen parameters of stage 1; the module's own copy has them.
    return {**module, **masters}


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
