"""Is the exported folder the trained model? Reload it as a user would, and compare token vectors with the engine's."""

import logging
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional
from transformers import AutoModel
from transformers.utils.logging import disable_progress_bar

from optical_scale.backbones.encoder import model_inputs
from optical_scale.batch import PatchBatch, TokenBatch
from optical_scale.errors import ExportError
from optical_scale.export.sentence_transformers import DENSE

# Largest difference as a share of the largest value: rounding of the export's or the engine's arithmetic. In fp32 on
# the same kind of processor nothing is rounded differently; another one sums in another order.
_TOLERANCE = {"fp32": 1e-5, "float32": 1e-5, "fp16": 1e-2, "float16": 1e-2, "bf16": 6e-2, "bfloat16": 6e-2}


class Verification(NamedTuple):
    """Result of a comparison: largest absolute difference of token vectors, and the largest allowed."""

    difference: float
    allowed: float

    def __str__(self) -> str:
        return f"largest difference to the trained embeddings {self.difference:.3g} (allowed {self.allowed:.3g})"


def verify(folder: Path, reference: Path, *, dtype: str, trained_in: str) -> Verification:
    """Compare the folder's token vectors with those that the training engine computed.

    Args:
        folder: exported; loaded from disk in float32.
        reference: safetensors with ``ids_BT`` and ``attention_BT`` (or ``pixels_BCHW``) and ``x_BTD``.
        dtype: of the exported weights.
        trained_in: precision of the engine.

    Raises:
        ExportError: weights are missing, left over, of other shape, or the vectors differ by more than allowed.
    """
    tensors = _read(reference)
    expected_BTD = tensors["x_BTD"]
    found_BTD = _encode(folder, tensors)
    if found_BTD.shape != expected_BTD.shape:
        raise ExportError(
            f"the reloaded model gives vectors of shape {tuple(found_BTD.shape)}, training gave "
            f"{tuple(expected_BTD.shape)}; assets/config.json or encoder.json does not belong to these weights"
        )
    # Vectors at padding are never used, and kernels may leave anything there.
    valid_BT = tensors["attention_BT"] if "ids_BT" in tensors else torch.ones(expected_BTD.shape[:2], dtype=torch.bool)
    difference = (found_BTD - expected_BTD)[valid_BT].abs().max().item()
    allowed = max(_TOLERANCE[dtype], _TOLERANCE[trained_in]) * expected_BTD[valid_BT].abs().max().item()
    result = Verification(difference, allowed)
    if not difference <= allowed:
        raise ExportError(f"the exported folder is not the trained model: {result}; nothing was kept")
    return result


def _read(reference: Path) -> dict[str, Tensor]:
    with safe_open(reference, framework="pt") as file:
        names = set(file.keys())
        if "x_BTD" not in names or not ({"ids_BT", "attention_BT"} <= names or "pixels_BCHW" in names):
            raise ExportError(
                f"{reference} holds {sorted(names)}; expected x_BTD with ids_BT and attention_BT, or with pixels_BCHW"
            )
        return {name: file.get_tensor(name) for name in names}


@torch.no_grad()
def _encode(folder: Path, tensors: dict[str, Tensor]) -> Tensor:
    model = _load(folder)
    attention_BT = tensors.get("attention_BT", torch.empty(0))
    batch = (
        TokenBatch(tensors["ids_BT"], attention_BT, attention_BT)
        if "ids_BT" in tensors
        else PatchBatch(tensors["pixels_BCHW"])
    )
    states_BTD: Tensor = model(**model_inputs(batch)).last_hidden_state
    dense = folder / DENSE / "model.safetensors"
    if dense.is_file():
        head = {name: tensor.float() for name, tensor in load_file(dense).items()}
        states_BTD = functional.linear(states_BTD, head["linear.weight"], head.get("linear.bias"))
    return states_BTD


def _load(folder: Path) -> Any:
    library = logging.getLogger("transformers")
    level = library.level
    library.setLevel(logging.ERROR)  # its report of missing weights repeats what is checked here
    disable_progress_bar()
    try:
        model, info = AutoModel.from_pretrained(
            folder, local_files_only=True, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ExportError(f"transformers cannot load the exported folder: {error}") from error
    finally:
        library.setLevel(level)
    problems = {
        # The class that AutoModel picks may have a pooler, which no token vector passes through and we never train.
        "missing": sorted(name for name in info["missing_keys"] if not name.startswith("pooler.")),
        "unknown to the architecture": sorted(info["unexpected_keys"]),
        "of another shape": sorted(str(entry) for entry in info["mismatched_keys"]),
    }
    found = "; ".join(f"{what}: {', '.join(names)}" for what, names in problems.items() if names)
    if found:
        raise ExportError(f"the weights do not fit the architecture in assets/config.json; {found}")
    return model.eval()
