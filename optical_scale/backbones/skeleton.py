"""A network without weights, and a forward pass that fetches them from disk one layer at a time."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import init_empty_weights
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoConfig
from transformers.initialization import no_init_weights

from optical_scale.backbones.encoder import from_config
from optical_scale.backbones.readout import tower_config


def skeleton(folder: Path, kind: Literal["text", "vision"] = "text") -> nn.Module:
    """The network that ``folder``'s config.json describes, in evaluation mode; its parameters have no values.

    Of a model of two towers it is that of ``kind``.

    Raises:
        OSError, ValueError: the configuration is missing or not understood by transformers.
    """
    config = tower_config(AutoConfig.from_pretrained(folder, local_files_only=True), kind)
    config.dtype = torch.float32
    with no_init_weights(), init_empty_weights(include_buffers=False):
        return from_config(config).eval()


def tied_names(model: nn.Module) -> dict[str, str]:
    """Parameters that the architecture ties, with the name under which files hold them."""
    return dict(getattr(model, "all_tied_weights_keys", None) or {})


def stream_weights(model: nn.Module, files: Mapping[str, Path]) -> None:
    """Make every forward pass of ``model`` read each layer's weights just before they are used, and drop them after.

    Values are computed in float32. A table of embeddings stays mapped, so that only the rows looked up are read.

    Args:
        model: a :func:`skeleton`.
        files: the safetensors file of each of its parameters and persistent buffers.
    """
    tied = tied_names(model)
    for prefix, module in model.named_modules():
        stored = module.state_dict(keep_vars=True)
        own = {name: tensor for name, tensor in stored.items() if name.rpartition(".")[0] in ("", _uncalled(module))}
        names = {name: f"{prefix}.{name}".removeprefix(".") for name in own}
        if own:
            sources = {name: tied.get(full, full) for name, full in names.items()}
            module.register_forward_pre_hook(_Fetch(sources, files))
            module.register_forward_hook(_Drop(own), always_call=True)


def _uncalled(module: nn.Module) -> str:
    """The child whose weights ``module`` uses without calling it: in torch's attention and in DeBERTa's encoder."""
    if isinstance(module, nn.MultiheadAttention):
        return "out_proj"
    return "rel_embeddings" if hasattr(module, "rel_embeddings") else ""


class _Fetch:
    def __init__(self, sources: Mapping[str, str], files: Mapping[str, Path]) -> None:
        self.sources = sources
        self.files = files

    def __call__(self, module: nn.Module, inputs: Any) -> None:
        for name, source in self.sources.items():
            with safe_open(self.files[source], framework="pt") as file:
                tensor: Tensor = file.get_tensor(source)
            if tensor.is_floating_point() and not isinstance(module, nn.Embedding):
                tensor = tensor.float()
            _place(module, name, tensor)


class _Drop:
    def __init__(self, empty: Mapping[str, Tensor]) -> None:
        self.empty = empty

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        for name, tensor in self.empty.items():
            _place(module, name, tensor)
        return output.float() if isinstance(module, nn.Embedding) else output


def _place(module: nn.Module, path: str, tensor: Tensor) -> None:
    owner, _, name = path.rpartition(".")
    module = module.get_submodule(owner)
    if name in module._parameters:
        module._parameters[name] = nn.Parameter(tensor, requires_grad=False)
    else:
        module._buffers[name] = tensor
