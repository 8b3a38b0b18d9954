"""Is the exported folder the trained model? Read it as a user would, and compare token vectors with the engine's.

The network is built from the folder's own files and computes in float32; its weights are read one layer at a time, so
that a model which no single host can hold is verified as well.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from optical_scale.backbones.encoder import EncoderContract, model_inputs
from optical_scale.backbones.readout import token_vectors
from optical_scale.backbones.skeleton import skeleton, stream_weights, tied_names
from optical_scale.backbones.tokenizers import TextTokenizer
from optical_scale.batch import PatchBatch, TokenBatch
from optical_scale.errors import ConfigError, ExportError

# Largest difference as a share of the largest value: rounding of the export's or the engine's arithmetic. In fp32 on
# the same kind of processor nothing is rounded differently; another one sums in another order.
_TOLERANCE = {"fp32": 1e-5, "float32": 1e-5, "fp16": 1e-2, "float16": 1e-2, "bf16": 6e-2, "bfloat16": 6e-2}


class Verification(NamedTuple):
    """Result of a comparison: largest absolute difference of token vectors, and the largest allowed."""

    difference: float
    allowed: float

    @property
    def holds(self) -> bool:
        """Not more than allowed; NaN is more."""
        return self.difference <= self.allowed

    def __str__(self) -> str:
        return f"largest difference to the trained embeddings {self.difference:.3g} (allowed {self.allowed:.3g})"


class Reference(NamedTuple):
    """What the engine computed: inputs by name with ``x_BTD``, and the texts that gave them, if they were texts."""

    tensors: Mapping[str, Tensor]
    texts: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> "Reference":
        """Read ``reference.safetensors``.

        Raises:
            ExportError: it lacks inputs or vectors.
        """
        with safe_open(path, framework="pt") as file:
            names = set(file.keys())
            if "x_BTD" not in names or not ({"ids_BT", "attention_BT"} <= names or "pixels_BCHW" in names):
                raise ExportError(
                    f"{path} holds {sorted(names)}; expected x_BTD with ids_BT and attention_BT, or with pixels_BCHW"
                )
            texts = json.loads((file.metadata() or {}).get("texts", "[]"))
            return cls({name: file.get_tensor(name) for name in names}, tuple(texts))


def verify(
    folder: Path, reference: Path, *, dtype: str, trained_in: str, new_ids_V: Tensor | None = None
) -> Verification:
    """Compare the folder's tokens and token vectors with those of the training engine.

    Args:
        folder: exported.
        reference: safetensors with ``ids_BT`` and ``attention_BT`` (or ``pixels_BCHW``) and ``x_BTD``.
        dtype: of the exported weights.
        trained_in: precision of the engine.
        new_ids_V: the exported id of each trained piece, if the vocabulary was trimmed.

    Raises:
        ExportError: weights are missing, left over, of other shape; the tokenizer reads the reference texts otherwise;
            or the vectors differ by more than allowed.
    """
    tensors, texts = Reference.read(reference)
    expected_BTD = tensors["x_BTD"]
    batch = reference_batch(tensors, new_ids_V)
    found_BTD = _encode(folder, batch)
    if isinstance(batch, TokenBatch) and texts:
        _check_tokens(folder, texts, batch)
    if found_BTD.shape != expected_BTD.shape:
        raise ExportError(
            f"the reloaded model gives vectors of shape {tuple(found_BTD.shape)}, training gave "
            f"{tuple(expected_BTD.shape)}; assets/config.json or encoder.json does not belong to these weights"
        )
    # Vectors at padding are never used, and kernels may leave anything there.
    valid_BT = batch.attention_BT if isinstance(batch, TokenBatch) else torch.ones(expected_BTD.shape[:2]).bool()
    result = compare(found_BTD, expected_BTD, valid_BT, dtype=dtype, trained_in=trained_in)
    if not result.holds:
        raise ExportError(f"the exported folder is not the trained model: {result}; nothing was kept")
    return result


def compare(found: Tensor, expected: Tensor, valid: Tensor, *, dtype: str, trained_in: str) -> Verification:
    """The largest difference where ``valid``, and how much of it rounding in these types explains.

    Args:
        found: vectors.
        expected: vectors, of the same shape.
        valid: bool, without their last dimension.
        dtype: of the exported weights.
        trained_in: precision of the engine.
    """
    difference = (found - expected)[valid].abs().max().item()
    allowed = max(_TOLERANCE[dtype], _TOLERANCE[trained_in]) * expected[valid].abs().max().item()
    return Verification(difference, allowed)


def reference_batch(tensors: Mapping[str, Tensor], new_ids_V: Tensor | None) -> TokenBatch | PatchBatch:
    """The recorded inputs, in pieces of the exported vocabulary."""
    if "ids_BT" not in tensors:
        return PatchBatch(tensors["pixels_BCHW"])
    attention_BT = tensors["attention_BT"].bool()
    ids_BT = tensors["ids_BT"] if new_ids_V is None else new_ids_V[tensors["ids_BT"]]
    return TokenBatch(ids_BT, attention_BT, tensors.get("mask_BT", attention_BT).bool())


def _check_tokens(folder: Path, texts: tuple[str, ...], expected: TokenBatch) -> None:
    """The contract and the tokenizer in the folder give training's ids and masks: prefix, limit, special tokens."""
    contract = EncoderContract.read(folder)
    assert contract is not None, "the export has written encoder.json"
    try:
        found = TextTokenizer.load(
            folder, contract.max_tokens, contract.prefix, mask_punctuation=contract.mask_punctuation
        )(texts)
    except (ConfigError, OSError, ValueError) as error:
        raise ExportError(f"the exported tokenizer does not load: {error}") from error
    pairs = {
        "ids": (found.ids_BT, expected.ids_BT),
        "attention": (found.attention_BT, expected.attention_BT),
        "mask": (found.mask_BT, expected.mask_BT),
    }
    for what, (ours, trained) in pairs.items():
        if not torch.equal(ours, trained):
            row = 0 if ours.shape != trained.shape else int((ours != trained).any(1).nonzero()[0])
            raise ExportError(
                f"the exported tokenizer gives other {what} than training did, first for {texts[row]!r}; "
                "assets/ in the checkpoint does not belong to this run"
            )


@torch.no_grad()
def _encode(folder: Path, batch: TokenBatch | PatchBatch) -> Tensor:
    model = _load(folder)
    contract = EncoderContract.read(folder)
    try:
        states_BTD = token_vectors(model, **model_inputs(batch))
    except (RuntimeError, IndexError, ValueError) as error:
        raise ExportError(f"the exported network does not run on the reference inputs: {error}") from error
    if contract is not None and contract.head:
        head = {name: tensor.float() for name, tensor in load_file(dense_file(folder)).items()}
        states_BTD = functional.linear(states_BTD, head["linear.weight"], head.get("linear.bias"))
    return states_BTD


def dense_file(folder: Path) -> Path:
    """The weights of the head.

    Raises:
        ExportError: there is none, or several.
    """
    found = sorted(folder.glob("*_Dense/model.safetensors"))
    if len(found) != 1:
        raise ExportError(f"{folder} has {len(found)} Dense weight files; expected 1")
    return found[0]


def _load(folder: Path) -> Any:
    try:
        model = skeleton(folder)
        files = {name: path for path in _weight_files(folder) for name in _shapes(path)}
        shapes = {name: shape for path in _weight_files(folder) for name, shape in _shapes(path).items()}
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise ExportError(f"transformers cannot load the exported folder: {error}") from error
    _check_keys(model, shapes)
    stream_weights(model, files)
    return model


def _check_keys(model: nn.Module, found: Mapping[str, tuple[int, ...]]) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    needed = set(expected) - set(tied_names(model))
    problems = {
        "missing": sorted(needed - set(found)),
        "unknown to the architecture": sorted(set(found) - set(expected)),
        "of another shape": sorted(
            f"{name} {found[name]} instead of {expected[name]}"
            for name in set(found) & set(expected)
            if found[name] != expected[name]
        ),
    }
    told = "; ".join(f"{what}: {', '.join(names)}" for what, names in problems.items() if names)
    if told:
        raise ExportError(f"the weights do not fit the architecture in assets/config.json; {told}")


def _weight_files(folder: Path) -> Iterator[Path]:
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        yield folder / "model.safetensors"
        return
    names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    yield from (folder / name for name in sorted(set(names)))


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    with safe_open(path, framework="pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
