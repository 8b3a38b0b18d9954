"""A pretrained backbone, read a tensor at a time: no process holds more than its share and one tensor.

`from_pretrained` of transformers builds the whole model in every process, also where ZeRO-3 would keep a share of it.
Here a network without values is built and changed first (layers, vocabulary); then each parameter is read from its
safetensors file in the type it will have, and handed to whoever partitions it, before the next one is read.
"""

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import AutoModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightRenaming, rename_source_key
from transformers.utils import logging as transformers_logging

from optical_scale.backbones.encoder import pooler_option
from optical_scale.backbones.folders import is_colbert
from optical_scale.backbones.readout import TWO_TOWERS
from optical_scale.backbones.skeleton import skeleton, tied_names
from optical_scale.errors import ConfigError

logger = logging.getLogger(__name__)

Store = Callable[[nn.Parameter], None]
"""Takes a parameter that has its values, for example to keep only this process's share of them."""

Tower = Literal["text", "vision"]

_PIECE_BYTES = 64 << 20


class Pretrained:
    """A backbone whose weights may still be on disk.

    Attributes:
        model: in evaluation mode; change it, then :meth:`fill` it.

    Args:
        folder: with config.json and weights. Weights that are not safetensors, or that transformers changes on reading,
            are read whole by transformers in every process; a warning says so.
        kind: of the tower that is taken of a model of two.

    Raises:
        ConfigError: the folder or its config.json is missing, or weights are missing or do not load.
    """

    def __init__(self, folder: Path, kind: Tower = "text") -> None:
        if not (folder / "config.json").is_file():
            raise ConfigError(
                f"backbone.pretrained: {folder} has no config.json; expected a Hugging Face model folder. "
                "Give the folder that `save_pretrained` or `optical-scale export` wrote"
            )
        self.folder = folder
        try:
            files = weight_files(folder)
            self.model = skeleton(folder, kind)
            sources = _sources(self.model, files, kind)
            if sources is None:
                self.model = _load_whole(folder, kind)
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
            raise ConfigError(f"backbone.pretrained: weights in {folder} do not load: {error}") from error
        # By identity, because surgery may give layers other names.
        stored = _stored(self.model)
        self._from = {id(stored[name]): source for name, source in (sources or {}).items()}
        self._files = files

    def read_table(self) -> None:
        """Give the input embeddings their values in fp32, for a change of vocabulary."""
        table: nn.Embedding = self.model.get_input_embeddings()  # type: ignore[operator]
        if table.weight.is_meta:
            table.weight = nn.Parameter(self._read(table.weight, torch.float32))

    def projection(self) -> Tensor | None:
        """The matrix (out, in) that CLIP and ColBERT put behind this network; None elsewhere.

        CLIP's maps the vectors of a tower into the space of both, ColBERT's those of tokens to fewer numbers.

        Raises:
            ConfigError: it does not fit behind the network.
        """
        config: Any = self.model.config
        names = {"clip_vision_model": "visual_projection.weight", "clip_text_model": "text_projection.weight"}
        name = "linear.weight" if is_colbert(self.folder) else names.get(config.model_type)
        if name is None or name not in self._files:
            return None
        with safe_open(self._files[name], framework="pt") as file:
            matrix: Tensor = file.get_tensor(name).float()
        if matrix.ndim != 2 or matrix.shape[1] != config.hidden_size:
            raise ConfigError(
                f"backbone.pretrained: {name} in {self.folder} has shape {tuple(matrix.shape)}; expected "
                f"(any, {config.hidden_size}), the width of the network. Its config.json belongs to other weights"
            )
        return matrix

    def fill(self, dtype: torch.dtype = torch.float32, store: Store | None = None) -> nn.Module:
        """Read what has no values yet.

        Args:
            dtype: of the parameters.
            store: called with every parameter as soon as it has its values.

        Raises:
            ConfigError: a file is damaged or a tensor has another shape than config.json says.
        """
        done: dict[int, nn.Parameter] = {}
        for module in self.model.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                if id(parameter) not in done:
                    values = self._read(parameter, dtype) if parameter.is_meta else parameter.detach().to(dtype)
                    done[id(parameter)] = full = nn.Parameter(values, requires_grad=parameter.requires_grad)
                    done[id(full)] = full
                    if store is not None:
                        store(full)
                    del values
                setattr(module, name, done[id(parameter)])
            for name, buffer in list(module.named_buffers(recurse=False)):
                if id(buffer) in self._from:
                    module._buffers[name] = self._read(buffer, buffer.dtype)
        return self.model

    def _read(self, empty: Tensor, dtype: torch.dtype) -> Tensor:
        source = self._from[id(empty)]
        values = torch.empty(empty.shape, dtype=dtype)
        try:
            _fill(values, self._files[source], source)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise ConfigError(f"backbone.pretrained: weights in {self.folder} do not load: {error}") from error
        return values


def load_backbone(folder: Path, kind: Tower = "text") -> nn.Module:
    """A pretrained backbone from a local folder, in fp32.

    Raises:
        ConfigError: the folder or its config.json is missing, or weights do not load.
    """
    return Pretrained(folder, kind).fill()


def weight_files(folder: Path) -> dict[str, Path]:
    """The safetensors file of every tensor, empty if there are none."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names: Mapping[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return {name: folder / file for name, file in names.items()}
    single = folder / "model.safetensors"
    if not single.is_file():
        return {}
    with safe_open(single, framework="pt") as file:
        return dict.fromkeys(file.keys(), single)


def _stored(model: nn.Module) -> dict[str, Tensor]:
    return dict(model.state_dict(keep_vars=True))


def _sources(model: nn.Module, files: Mapping[str, Path], kind: Tower) -> dict[str, str] | None:
    """The name on disk of every tensor of ``model``; None where only transformers knows."""
    if tied_names(model):
        return None
    stored = _stored(model)
    conversions: list[Any] = get_model_conversion_mapping(model)
    renamings = [conversion for conversion in conversions if isinstance(conversion, WeightRenaming)]
    converters = [conversion for conversion in conversions if not isinstance(conversion, WeightRenaming)]
    found: dict[str, str] = {}
    for source in files:
        name, converted = rename_source_key(source, renamings, converters)
        # Checkpoints of a task's model have a prefix, and so have both towers of one.
        for prefix in ("", f"{getattr(model, 'base_model_prefix', '')}.", f"{kind}_model."):
            own = name.removeprefix(prefix)
            if own in stored and converted is None and own not in found:
                found[own] = source
    return found if len(found) == len(stored) else None


def _fill(values: Tensor, path: Path, name: str) -> None:
    """Copy a tensor some rows at a time; the file is closed in between, because its mapped pages count as memory."""
    rows = max(1, _PIECE_BYTES // max(1, values[:1].nbytes)) if values.ndim else 1
    for start in range(0, len(values) if values.ndim else 1, rows):
        with safe_open(path, framework="pt") as file:
            part = file.get_slice(name)
            if tuple(part.get_shape()) != tuple(values.shape):
                raise ValueError(
                    f"tensor {name} has shape {tuple(part.get_shape())}, config.json says {tuple(values.shape)}"
                )
            if values.ndim:
                values[start : start + rows] = part[start : start + rows]
            else:
                values.copy_(file.get_tensor(name))


def _load_whole(folder: Path, kind: Tower) -> nn.Module:
    """By transformers, which knows older names and formats."""
    logger.warning("%s is read whole in every process; save it again by transformers to have it read in parts", folder)
    # Its report lists the pooler we leave out, and its bar would appear once per rank.
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    model: Any
    model, told = AutoModel.from_pretrained(
        folder, local_files_only=True, dtype=torch.float32, output_loading_info=True, **pooler_option(folder)
    )
    if told["missing_keys"]:
        raise ValueError(f"{len(told['missing_keys'])} tensors are missing, first {min(told['missing_keys'])}")
    loaded: nn.Module = getattr(model, f"{kind}_model") if model.config.model_type in TWO_TOWERS else model
    return loaded
