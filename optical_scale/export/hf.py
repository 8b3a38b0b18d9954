"""Checkpoints to Hugging Face folders, one shard of tensors in memory at a time."""

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

from optical_scale.backbones.encoder import EncoderContract
from optical_scale.engine.consolidate import iterate_tensors
from optical_scale.errors import CheckpointError, ExportError
from optical_scale.export.model_card import CardFacts, model_card
from optical_scale.export.sentence_transformers import write_dense, write_layout
from optical_scale.export.source import check_files
from optical_scale.export.verify import Verification, verify
from optical_scale.runtime.files import folder_appears, write_atomic, write_json

logger = logging.getLogger(__name__)

Dtype = Literal["float32", "bfloat16", "float16"]


class ExportReport(NamedTuple):
    """What was written: the folder, elements of all tensors, weight files, and how the reload compared."""

    folder: Path
    parameters: int
    shards: int
    verification: Verification


def export_huggingface(
    checkpoint: Path,
    output: Path,
    *,
    dtype: Dtype = "float32",
    max_shard_bytes: int = 5_000_000_000,
    trained_in: str = "fp32",
    card: CardFacts | None = None,
) -> ExportReport:
    """Write a folder that transformers loads, and for text sentence-transformers too; it appears only if verified.

    Args:
        checkpoint: a complete step folder.
        output: folder to create.
        dtype: of the weights.
        max_shard_bytes: a weight file ends before it exceeds this, and this much memory is used.
        trained_in: precision of the training engine (``fp32``, ``bf16``, ``fp16``), which computed the reference.
        card: for README.md; None leaves it out.

    Raises:
        CheckpointError: the checkpoint is damaged.
        ExportError: ``output`` exists, or the reloaded folder does not give the reference embeddings.
    """
    assets = checkpoint / "assets"
    try:
        with folder_appears(output) as folder:
            check_files(checkpoint)
            contract = EncoderContract.read(assets)
            assert contract is not None, "check_files saw encoder.json"
            _copy_assets(assets, folder, dtype, contract)
            parameters, shards = _write_weights(checkpoint, folder, getattr(torch, dtype), max_shard_bytes, contract)
            verification = verify(folder, checkpoint / "reference.safetensors", dtype=dtype, trained_in=trained_in)
            if card is not None:
                write_atomic(folder / "README.md", model_card(card, contract, parameters, verification))
    except FileExistsError as error:
        raise ExportError(f"{error}; nothing was written. Choose another output, or delete that folder") from error
    logger.info("%s: %s parameters in %d files, %s", output, f"{parameters:,}", shards, verification)
    return ExportReport(output, parameters, shards, verification)


def _copy_assets(assets: Path, folder: Path, dtype: Dtype, contract: EncoderContract) -> None:
    for path in sorted(assets.iterdir()):
        shutil.copyfile(path, folder / path.name)
    config = json.loads((assets / "config.json").read_text(encoding="utf-8"))
    config.pop("torch_dtype", None)
    write_json(folder / "config.json", config | {"dtype": dtype})
    if contract.kind == "text":
        write_layout(folder, contract, int(config["hidden_size"]))
        tokenizer = folder / "tokenizer_config.json"
        if tokenizer.is_file():
            values = json.loads(tokenizer.read_text(encoding="utf-8"))
            write_json(tokenizer, values | {"model_max_length": contract.max_tokens})


def _write_weights(
    checkpoint: Path, folder: Path, dtype: torch.dtype, max_shard_bytes: int, contract: EncoderContract
) -> tuple[int, int]:
    """Returns the number of parameters and of weight files."""
    head: dict[str, Tensor] = {}
    writer = _ShardWriter(folder, max_shard_bytes)
    for name, tensor in _cast(iterate_tensors(checkpoint), dtype):
        part, _, inner = name.partition(".")
        if part == "backbone":
            writer.add(inner, tensor)
        elif part == "head":
            head[inner] = tensor
        else:
            raise CheckpointError(f"{checkpoint}: found tensor {name}; a student has only backbone.* and head.*")
    writer.finish()
    expected = {"weight", *["bias"] * contract.head["bias"]} if contract.head else set()
    if set(head) != expected:
        raise CheckpointError(
            f"{checkpoint}: the head has tensors {sorted(head)}; expected {sorted(expected)} from assets/encoder.json"
        )
    if contract.head:
        write_dense(folder, contract.head, head)
    return writer.elements + sum(tensor.numel() for tensor in head.values()), len(writer.names)


def _cast(tensors: Iterator[tuple[str, Tensor]], dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in tensors:
        if not tensor.is_floating_point():
            yield name, tensor
            continue
        cast = tensor.to(dtype)
        if not torch.isfinite(cast).all():
            cause = f"in {dtype}" if torch.isfinite(tensor).all() else "in the checkpoint"
            raise ExportError(f"tensor {name} is not finite {cause}; export in float32, or an earlier checkpoint")
        yield name, cast


class _ShardWriter:
    """Fills safetensors files up to a size; names follow transformers' scheme, known only at the end."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self.names: list[list[str]] = []
        self.elements = 0
        self._bytes = 0
        self._shard: dict[str, Tensor] = {}
        self._total = 0

    def add(self, name: str, tensor: Tensor) -> None:
        size = tensor.numel() * tensor.element_size()
        if self._shard and self._bytes + size > self.max_bytes:
            self._flush()
        # A view of a memory-mapped file would be written with the whole file's storage behind it.
        self._shard[name] = tensor.clone() if tensor.untyped_storage().nbytes() != size else tensor.contiguous()
        self._bytes += size
        self._total += size
        self.elements += tensor.numel()

    def finish(self) -> None:
        """Write the last shard, give all their final names and write the index if there are several."""
        self._flush()
        count = len(self.names)
        final = [
            "model.safetensors" if count == 1 else f"model-{number:05d}-of-{count:05d}.safetensors"
            for number in range(1, count + 1)
        ]
        for number, name in enumerate(final):
            self._path(number).replace(self.folder / name)
        if count > 1:
            weight_map = {name: file for file, names in zip(final, self.names, strict=True) for name in names}
            index = {"metadata": {"total_size": self._total}, "weight_map": weight_map}
            write_json(self.folder / "model.safetensors.index.json", index)

    def _flush(self) -> None:
        save_file(self._shard, self._path(len(self.names)), metadata={"format": "pt"})
        self.names.append(list(self._shard))
        self._shard, self._bytes = {}, 0

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:05d}.safetensors"
