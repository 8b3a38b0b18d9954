"""What of an encoder is trained: all of it, all but frozen parts, or low-rank adapters and the head.

Adapters are those of Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models" (arXiv 2106.09685): a frozen
matrix W acts as W + (alpha / rank) B A, with B zero at the start. The library is peft.
"""

from collections.abc import Sequence

from torch import nn

from optical_scale.backbones.encoder import Encoder
from optical_scale.errors import ConfigError


def add_adapters(
    encoder: Encoder, rank: int, *, alpha: float, dropout: float = 0.0, targets: Sequence[str] | None = None
) -> None:
    """Freeze the backbone and put adapters beside its linear layers, in place; the head stays trainable.

    Args:
        encoder: its linear layers change their names to ``….base_layer``.
        rank: of the added matrices.
        alpha: the update is scaled by ``alpha / rank``.
        dropout: probability on the adapters' inputs.
        targets: ends of the names of linear layers, such as ``query`` or ``output.dense``; None adapts all.

    Raises:
        ConfigError: peft is not installed, or a target matches no linear layer.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ConfigError("student.lora: needs peft; install it with `pip install optical-scale[lora]`") from error
    backbone = encoder.backbone
    # Not the projection inside torch's own attention, whose weights that uses without calling it.
    linear = [name for name, module in backbone.named_modules() if type(module) is nn.Linear]
    chosen = linear if targets is None else [name for target in targets for name in _ending(linear, target)]
    inject_adapter_in_model(
        LoraConfig(
            r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=sorted(set(chosen)), init_lora_weights=True
        ),
        backbone,
    )


def freeze(encoder: Encoder, parts: Sequence[str]) -> None:
    """Exclude parts of the backbone from training, in place.

    Args:
        encoder: whose backbone is meant.
        parts: names of modules or parameters of the backbone, for example ``embeddings`` or ``encoder.layer.0``.

    Raises:
        ConfigError: a name that the backbone does not have.
    """
    names = [name for name, _ in encoder.backbone.named_parameters()]
    for part in parts:
        found = [name for name in names if name == part or name.startswith(f"{part}.")]
        if not found:
            known = ", ".join(name for name, _ in encoder.backbone.named_children())
            raise ConfigError(
                f"student.freeze: the backbone has no part {part!r}; its parts are {known} and what is below them"
            )
        for name in found:
            encoder.backbone.get_parameter(name).requires_grad_(False)


def _ending(names: Sequence[str], target: str) -> list[str]:
    found = [name for name in names if name == target or name.endswith(f".{target}")]
    if not found:
        known = sorted({name.rpartition(".")[2] for name in names})
        raise ConfigError(
            f"student.lora.targets: no linear layer is called {target!r}; found layers called {', '.join(known)}"
        )
    return found
