"""Checkpoints to Hugging Face folders, a piece of a tensor in memory at a time."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from optical_scale.backbones.encoder import EncoderContract
from optical_scale.backbones.skeleton import skeleton, tied_names
from optical_scale.engine.consolidate import StoredModel, StoredTensor
from optical_scale.errors import CheckpointError, ExportError
from optical_scale.export import pylate, sentence_transformers
from optical_scale.export.adapters import MergedTensor, merge_adapters
from optical_scale.export.model_card import CardFacts, model_card
from optical_scale.export.onnx import require_onnx, write_onnx
from optical_scale.export.source import check_files
from optical_scale.export.verify import Verification, verify
from optical_scale.export.vision_text import VISION, add_text_tower
from optical_scale.export.vocabulary import Texts, trim_vocabulary
from optical_scale.export.weights import Weight, plan_files, write_file, write_files
from optical_scale.runtime.files import folder_appears, write_atomic, write_json

Dtype = Literal["float32", "bfloat16", "float16"]
Layout = Literal["sentence_transformers", "pylate", "vision_text"]


class TextTower(NamedTuple):
    """A text encoder to join: its folder, and what its inputs were in training if the folder does not say."""

    folder: Path
    contract: EncoderContract


class ExportReport(NamedTuple):
    """What was written: folder, elements of all tensors, weight files, how reload and graph compared, where it went."""

    folder: Path
    parameters: int
    shards: int
    verification: Verification
    onnx: Verification | None = None
    pushed: str | None = None


def export_huggingface(
    checkpoint: Path,
    output: Path,
    *,
    dtype: Dtype = "float32",
    layout: Layout = "sentence_transformers",
    max_shard_bytes: int = 5_000_000_000,
    texts: Texts | None = None,
    trained_in: str = "fp32",
    adapter_scale: float | None = None,
    text: TextTower | None = None,
    onnx: bool = False,
    card: CardFacts | None = None,
) -> ExportReport:
    """Write a folder that transformers loads, and for text the library of ``layout`` too; it appears only if verified.

    Args:
        checkpoint: a complete step folder, or that of the second tower in it.
        output: folder to create.
        dtype: of the weights.
        layout: what a text encoder's folder is besides: sentence-transformers with mean pooling, or PyLate, which
            sentence-transformers' multi-vector class reads as well. ``vision_text`` joins an image encoder to ``text``.
        max_shard_bytes: a weight file ends before it exceeds this.
        texts: keep only the pieces of the vocabulary that occur in them; None keeps all.
        trained_in: precision of the training engine (``fp32``, ``bf16``, ``fp16``), which computed the reference.
        adapter_scale: what the product of low-rank adapters is multiplied by before they are merged; None if the
            student was trained without.
        text: the other tower, for the layout ``vision_text``.
        onnx: write the encoder as an ONNX graph besides.
        card: for README.md; None leaves it out.

    Raises:
        CheckpointError: the checkpoint is damaged.
        ExportError: ``output`` exists, or the reloaded folder does not give the reference embeddings.
    """
    if onnx:
        require_onnx()
    try:
        with folder_appears(output) as folder:
            check_files(checkpoint)
            contract = EncoderContract.read(checkpoint / "assets")
            assert contract is not None, "check_files saw encoder.json"
            if (text is None) != (layout != "vision_text") or (text is not None and contract.kind != "vision"):
                raise ExportError(f"{checkpoint} holds a {contract.kind} encoder; layout vision_text is for images")
            tower = folder / VISION if text else folder
            _copy_assets(checkpoint / "assets", tower, dtype)
            reference = checkpoint / "reference.safetensors"
            new_ids_V = None if texts is None else trim_vocabulary(tower, contract, texts, reference)
            parameters, shards = _write_weights(
                checkpoint, tower, getattr(torch, dtype), max_shard_bytes, contract, layout, new_ids_V, adapter_scale
            )
            verification = verify(tower, reference, dtype=dtype, trained_in=trained_in, new_ids_V=new_ids_V)
            graph = write_onnx(tower, reference, trained_in=trained_in, new_ids_V=new_ids_V) if onnx else None
            if text is not None:
                add_text_tower(folder, *text)
            if card is not None:
                write_atomic(folder / "README.md", model_card(card, contract, parameters, verification, layout))
    except FileExistsError as error:
        raise ExportError(f"{error}; nothing was written. Choose another output, or delete that folder") from error
    return ExportReport(output, parameters, shards, verification, graph)


def _copy_assets(assets: Path, folder: Path, dtype: Dtype) -> None:
    folder.mkdir(exist_ok=True)
    for path in sorted(assets.iterdir()):
        shutil.copyfile(path, folder / path.name)
    config = json.loads((assets / "config.json").read_text(encoding="utf-8"))
    config.pop("torch_dtype", None)
    write_json(folder / "config.json", config | {"dtype": dtype})


def _write_layout(folder: Path, contract: EncoderContract, layout: Layout) -> Path:
    """Everything but weights that makes a text encoder's folder loadable; returns where the head belongs."""
    if contract.kind == "vision":
        return folder / sentence_transformers.DENSE
    _write_tokenizer_config(folder / "tokenizer_config.json", contract.max_tokens)
    width = int(json.loads((folder / "config.json").read_text(encoding="utf-8"))["hidden_size"])
    if layout == "pylate":
        return pylate.write_layout(folder, contract, width)
    return sentence_transformers.write_layout(folder, contract, width)


def _write_tokenizer_config(path: Path, max_tokens: int) -> None:
    """The length limit, and names that transformers 4 knows too; version 5 understands both."""
    if not path.is_file():
        return
    values = json.loads(path.read_text(encoding="utf-8")) | {"model_max_length": max_tokens}
    if values.get("tokenizer_class") == "TokenizersBackend":
        values["tokenizer_class"] = "PreTrainedTokenizerFast"
    for name in ("backend", "is_local", "local_files_only"):  # about the process that saved it
        values.pop(name, None)
    write_json(path, values)


def _write_weights(
    checkpoint: Path,
    folder: Path,
    dtype: torch.dtype,
    max_shard_bytes: int,
    contract: EncoderContract,
    layout: Layout,
    new_ids_V: Tensor | None,
    adapter_scale: float | None,
) -> tuple[int, int]:
    """Returns the number of parameters and of weight files."""
    dense = _write_layout(folder, contract, layout)
    model = StoredModel(checkpoint)
    backbone, head = _weights(checkpoint, folder, merge_adapters(model.tensors, adapter_scale), dtype, new_ids_V)
    expected = {"linear.weight", *["linear.bias"] * contract.head["bias"]} if contract.head else set()
    if {weight.name for weight in head} != expected:
        found = sorted(weight.name.removeprefix("linear.") for weight in head)
        wanted = sorted(name.removeprefix("linear.") for name in expected)
        raise CheckpointError(f"{checkpoint}: the head has tensors {found}; expected {wanted} from assets/encoder.json")
    files = plan_files(backbone, max_shard_bytes)
    write_files(folder, files)
    if contract.head:
        sentence_transformers.write_dense_config(dense, contract.head)
        write_file(dense / "model.safetensors", head)
    model.finish()
    return sum(weight.elements for weight in [*backbone, *head]), len(files)


def _weights(
    checkpoint: Path,
    folder: Path,
    tensors: Sequence[StoredTensor | MergedTensor],
    dtype: torch.dtype,
    new_ids_V: Tensor | None,
) -> tuple[list[Weight], list[Weight]]:
    """The tensors of the backbone and of the head, under the names of the export."""
    backbone: list[Weight] = []
    head: list[Weight] = []
    empty = skeleton(folder)
    table = next(name for name, module in empty.named_modules() if module is empty.get_input_embeddings())  # type: ignore[operator]
    written = set(empty.state_dict()) - set(tied_names(empty))
    for stored in tensors:
        inner = [name.removeprefix("backbone.") for name in stored.names if name.startswith("backbone.")]
        if stored.names[0].startswith("head."):
            head.append(Weight(stored.names[0].replace("head", "linear", 1), stored, dtype))
        elif not inner:
            raise CheckpointError(
                f"{checkpoint}: found tensor {stored.names[0]}; a student has only backbone.* and head.*"
            )
        # Of tied names, transformers wants one in the file and ties the rest itself.
        for name in [name for name in inner if name in written] or inner[:1]:
            rows_V = new_ids_V >= 0 if new_ids_V is not None and name == f"{table}.weight" else None
            backbone.append(Weight(name, stored, dtype, rows_V))
    return backbone, head
