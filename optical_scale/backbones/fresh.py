"""A network with random weights, made a module at a time: no process holds more than its share and one module."""

from collections.abc import Callable
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import nn
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from optical_scale.backbones.encoder import from_config
from optical_scale.errors import ConfigError

Store = Callable[[nn.Parameter], None]
"""Takes a parameter that has its values, for example to keep only this process's share of them."""


def backbone_config(architecture: dict[str, Any], **overrides: Any) -> PretrainedConfig:
    """The Hugging Face configuration of a network from scratch.

    Raises:
        ConfigError: transformers does not understand it.
    """
    values = {**architecture, **overrides}
    model_type = values.pop("model_type")
    try:
        return AutoConfig.for_model(model_type, **values)
    except (ValueError, TypeError, KeyError) as error:
        raise _refused(model_type, error) from error


def empty_backbone(config: PretrainedConfig) -> nn.Module:
    """The network of ``config``; its parameters have shapes and no values.

    Raises:
        ConfigError: transformers refuses the configuration.
    """
    try:
        with no_init_weights(), init_empty_weights(include_buffers=False):
            return from_config(config)
    except (ValueError, TypeError, KeyError) as error:
        raise _refused(config.model_type, error) from error


def build_backbone(
    architecture: dict[str, Any], dtype: torch.dtype = torch.float32, store: Store | None = None, **overrides: Any
) -> nn.Module:
    """A randomly initialised backbone from a Hugging Face configuration.

    Values are drawn in float32 from torch's generator, module after module, whatever ``dtype`` and ``store`` are; so
    equal seeds give equal networks on every rank and for every way of keeping them.

    Args:
        architecture: the configuration, with ``model_type``.
        dtype: of the parameters.
        store: called with every parameter as soon as it has its values, in the same order on all ranks.
        overrides: win over ``architecture``.

    Raises:
        ConfigError: transformers does not understand the configuration, or leaves a parameter without values.
    """
    model = empty_backbone(backbone_config(architecture, **overrides))
    _fill(model, model, dtype, store, {})
    return model


@torch.no_grad()
def _fill(
    module: nn.Module,
    owner: nn.Module,
    dtype: torch.dtype,
    store: Store | None,
    done: dict[int, nn.Parameter],
) -> None:
    """Initialise ``module`` after its children, by the rule of the transformers model that it belongs to."""
    owner = module if isinstance(module, PreTrainedModel) else owner
    for child in module.children():
        _fill(child, owner, dtype, store, done)
    own = dict(module.named_parameters(recurse=False))
    if not own:
        return
    for name, parameter in own.items():
        if id(parameter) not in done:  # parameters of two modules are tied
            values = torch.full(parameter.shape, torch.nan)
            setattr(module, name, nn.Parameter(values, requires_grad=parameter.requires_grad))
    owner._init_weights(module)  # type: ignore[operator]
    for name, parameter in own.items():
        if id(parameter) in done:
            setattr(module, name, done[id(parameter)])
            continue
        drawn = getattr(module, name)
        if drawn.numel() and bool(drawn.flatten()[-1].isnan()):
            raise ConfigError(
                f"backbone.architecture: {type(owner).__name__} has no rule for the first values of {name} in "
                f"{type(module).__name__}; start from weights (`pretrained`) instead"
            )
        full = nn.Parameter(drawn.detach().to(dtype), requires_grad=drawn.requires_grad)
        setattr(module, name, full)
        del drawn
        done[id(parameter)] = full
        if store is not None:
            store(full)


def _refused(model_type: str, error: Exception) -> ConfigError:
    return ConfigError(f"backbone.architecture: transformers refuses model_type {model_type!r}: {error}")
