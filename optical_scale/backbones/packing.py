"""Encoding without padding: the tokens of a batch one after another, each attending to its own text only.

The layers other than attention then compute real tokens only. Attention on GPUs, in 16 bits and without dropout on its
weights, is torch's kernel for texts of different lengths (Flash attention, arXiv 2205.14135); elsewhere texts take
turns.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from optical_scale.errors import ConfigError

_NAME = "packed"
# Where positions start: RoBERTa's follow the padding id.
FIRST_POSITION: dict[str, Callable[[Any], int]] = {
    "bert": lambda config: 0,
    "roberta": lambda config: config.pad_token_id + 1,
    "camembert": lambda config: config.pad_token_id + 1,
    "xlm-roberta": lambda config: config.pad_token_id + 1,
    "xlm-roberta-xl": lambda config: config.pad_token_id + 1,
}


def prepare_packing(backbone: nn.Module) -> None:
    """Make :func:`packed_states` possible; other forward passes of ``backbone`` are not any more.

    Raises:
        ConfigError: a network whose attention is of another kind.
    """
    from transformers import AttentionInterface, AttentionMaskInterface

    config: Any = backbone.config
    if config.model_type not in FIRST_POSITION:
        raise ConfigError(
            f"engine.packed: {config.model_type} is not known to attend to whole texts by positions alone; known are "
            f"{', '.join(FIRST_POSITION)}. Leave `packed` out"
        )
    AttentionInterface.register(_NAME, _attend)
    AttentionMaskInterface.register(_NAME, _no_mask)
    backbone.set_attn_implementation(_NAME)  # type: ignore[operator]


def packed_states(
    backbone: nn.Module, ids_BT: Tensor, attention_BT: Tensor, layers: Sequence[int] = ()
) -> list[Tensor]:
    """Token vectors (N, D) of the N tokens that ``attention_BT`` marks, text after text; then those of ``layers``.

    Args:
        backbone: after :func:`prepare_packing`.
        ids_BT: token ids.
        attention_BT: 1 at tokens and 0 at padding, which follows them.
        layers: inner layers whose vectors are wanted too, 0 being the embeddings.
    """
    config: Any = backbone.config
    lengths_B = attention_BT.sum(1, dtype=torch.int32)
    start = FIRST_POSITION[config.model_type](config)
    positions_BT = torch.arange(start, start + ids_BT.shape[1], device=ids_BT.device).expand_as(ids_BT)
    real_BT = attention_BT.bool()
    found = backbone(
        input_ids=ids_BT[real_BT][None],
        position_ids=positions_BT[real_BT][None],
        texts=_Texts(lengths_B, ids_BT.shape[1]),
        output_hidden_states=bool(layers),
    )
    return [found.last_hidden_state[0], *(found.hidden_states[number][0] for number in layers)]


def _no_mask(*_: Any, **__: Any) -> None:
    """Attention itself keeps to one text."""


class _Texts:
    """Where texts begin and end; for attention on the device, or for a loop on the host."""

    def __init__(self, lengths_B: Tensor, longest: int) -> None:
        self._lengths_B = lengths_B
        self.longest = longest
        self.offsets = functional.pad(lengths_B.cumsum(0, dtype=torch.int32), (1, 0))
        self._list: list[int] | None = None

    def lengths(self) -> list[int]:
        """Tokens of each text; waits for the device once."""
        if self._list is None:
            self._list = self._lengths_B.tolist()
        return self._list


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    texts: _Texts,
    dropout: float = 0.0,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of (1, H, N, C) queries within each text, as transformers wants it: (1, N, H, C), and no weights."""
    if query.is_cuda and query.dtype != torch.float32 and not dropout:
        from torch.nn.attention.varlen import varlen_attn

        q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))
        at = texts.offsets
        found = varlen_attn(q, k, v, at, at, texts.longest, texts.longest, scale=scaling)
        assert isinstance(found, Tensor)
        return found[None], None
    parts = (torch.split(part, texts.lengths(), dim=2) for part in (query, key, value))
    attended = [
        functional.scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=scaling)
        for q, k, v in zip(*parts, strict=True)
    ]
    return torch.cat(attended, dim=2).transpose(1, 2), None
