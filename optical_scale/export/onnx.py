"""The encoder as one ONNX graph with dynamic axes, proved by ONNX Runtime against the training engine's vectors.

The graph computes in float32: inputs ``input_ids`` and ``attention_mask`` (B, T), or ``pixel_values`` (B, C, H, W);
outputs ``last_hidden_state`` (B, T, H) of the backbone, which optimum and sentence-transformers' ONNX backend read,
``token_embeddings`` (B, T, D) after the head, and ``sentence_embedding`` (B, D), their mean at unit length, or the one
into which the network sums all up.
Unlike the rest of an export this holds the whole model in memory.
"""

import json
import logging
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from optical_scale.backbones.encoder import Encoder, EncoderContract, load_head, model_inputs
from optical_scale.backbones.pretrained import load_backbone
from optical_scale.backbones.readout import pooled_over, token_vectors, width_of
from optical_scale.errors import ExportError
from optical_scale.export.verify import Reference, Verification, compare, reference_batch

FILE = Path("onnx", "model.onnx")
OUTPUTS = ("last_hidden_state", "token_embeddings", "sentence_embedding")
INSTALL_HINT = "install them with `pip install optical-scale[onnx]`"


def require_onnx() -> None:
    """Say so before any work if the libraries are not there.

    Raises:
        ExportError: onnx, onnxruntime or onnxscript is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ExportError(f"ONNX needs onnx, onnxruntime and onnxscript ({error}); {INSTALL_HINT}") from error


def write_onnx(folder: Path, reference: Path, *, trained_in: str, new_ids_V: Tensor | None = None) -> Verification:
    """Write ``onnx/model.onnx`` and its weights into an exported folder, and run it.

    Args:
        folder: exported, with weights.
        reference: as for :func:`.verify.verify`.
        trained_in: precision of the engine.
        new_ids_V: the exported id of each trained piece, if the vocabulary was trimmed.

    Raises:
        ExportError: torch cannot export the network, or ONNX Runtime gives other vectors.
    """
    contract = EncoderContract.read(folder)
    assert contract is not None, "the export has written encoder.json"
    dtype = json.loads((folder / "config.json").read_text(encoding="utf-8"))["dtype"]
    tensors = Reference.read(reference).tensors
    inputs = model_inputs(reference_batch(tensors, new_ids_V))
    (folder / FILE).parent.mkdir()
    kind = _Text if contract.kind == "text" else _Images
    encoder = _encoder(folder, contract)
    _export(kind(encoder, contract.normalize).eval(), inputs, contract, folder / FILE)
    found_BTD, found_BD = _run(folder / FILE, inputs)
    valid_BT = inputs.get("attention_mask", torch.ones(found_BTD.shape[:2])).bool()
    states = compare(found_BTD, tensors["x_BTD"], valid_BT, dtype=dtype, trained_in=trained_in)
    pooled_BD = _pool(tensors["x_BTD"], pooled_over(valid_BT, encoder.readout), contract.normalize)
    ones_B = torch.ones(len(pooled_BD), dtype=torch.bool)
    pooled = compare(found_BD, pooled_BD, ones_B, dtype=dtype, trained_in=trained_in)
    for what, result in (("token", states), ("pooled", pooled)):
        if not result.holds:
            raise ExportError(f"the ONNX graph is not the trained model: {what} vectors, {result}; nothing was kept")
    return states


class _Text(nn.Module):
    """What is exported: the outputs named above. torch's exporter wants the inputs by name."""

    def __init__(self, encoder: Encoder, normalize: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.normalize = normalize

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        states_BTH = token_vectors(self.encoder.backbone, input_ids=input_ids, attention_mask=attention_mask)
        return self.outputs(states_BTH, attention_mask)

    def outputs(self, states_BTH: Tensor, valid_BT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x_BTD = self.encoder.head(states_BTH)
        # Without a head a clone, because an output has one name.
        pooled_BD = _pool(x_BTD, pooled_over(valid_BT.bool(), self.encoder.readout), self.normalize)
        return states_BTH, x_BTD.clone() if x_BTD is states_BTH else x_BTD, pooled_BD


class _Images(_Text):
    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        states_BTH = token_vectors(self.encoder.backbone, pixel_values=pixel_values)
        return self.outputs(states_BTH, torch.ones_like(states_BTH[..., 0]))


def _pool(x_BTD: Tensor, valid_BT: Tensor, normalize: bool) -> Tensor:
    valid_BT1 = valid_BT.unsqueeze(-1).to(x_BTD.dtype)
    mean_BD = (x_BTD * valid_BT1).sum(1) / valid_BT1.sum(1)
    return functional.normalize(mean_BD) if normalize else mean_BD


def _encoder(folder: Path, contract: EncoderContract) -> Encoder:
    backbone = load_backbone(folder)
    width = width_of(backbone.config)
    head = contract.head or {"out": None, "bias": False}
    encoder = Encoder(backbone, width, head["out"], head["bias"])
    if contract.head:
        load_head(encoder, folder)
    return encoder


def _export(model: nn.Module, inputs: dict[str, Tensor], contract: EncoderContract, path: Path) -> None:
    axes = {0: torch.export.Dim("batch")}
    if contract.kind == "text":
        axes[1] = torch.export.Dim("tokens", max=contract.max_tokens)
    # An axis of length one would be taken for a constant.
    example = {name: torch.cat([tensor, tensor])[:2] for name, tensor in inputs.items()}
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model,
                (),
                path,
                kwargs=example,
                dynamic_shapes=dict.fromkeys(example, axes),
                output_names=OUTPUTS,
                dynamo=True,
                external_data=True,
                verbose=False,
            )
    except Exception as error:
        cause = error.__cause__ or error
        reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
        raise ExportError(f"torch cannot write this network as ONNX: {reason}; export without onnx") from error
    finally:
        logging.getLogger("torch.onnx").setLevel(level)


def _run(path: Path, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = session.run(list(OUTPUTS[1:]), {name: tensor.numpy() for name, tensor in inputs.items()})
    return torch.from_numpy(found[0]), torch.from_numpy(found[1])
