"""An encoder is a Hugging Face backbone followed by an optional linear head; it maps a batch to token vectors."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import AutoConfig, PretrainedConfig

from optical_scale.backbones.packing import packed_states, prepare_packing
from optical_scale.backbones.readout import (
    TEXT,
    Pooled,
    Readout,
    pooled_over,
    readout_of,
    vectors_of_layers,
    width_of,
)
from optical_scale.batch import PatchBatch, TokenBatch, TokenStates
from optical_scale.errors import ConfigError
from optical_scale.runtime.files import write_json

CONTRACT_FILE = "encoder.json"
MASK_RULES = {
    False: "special tokens that the tokenizer adds are excluded",
    True: "special tokens that the tokenizer adds and tokens of punctuation alone are excluded",
}
"""In words, by whether punctuation is masked."""


@dataclass(frozen=True, slots=True)
class EncoderContract:
    """What must agree between training and use; stored beside the weights as ``encoder.json``.

    Attributes:
        kind: ``text`` or ``vision``.
        max_tokens: inputs are cut to this many tokens; 0 for images.
        prefix: text put before every input.
        head: sizes of the projection, or None.
        normalize: embeddings are scaled to unit length before they are compared.
        mask_rule: which tokens take part in token-level scores, in words.
        passage_prefix: text put before every passage; None if it is ``prefix``.
        pooled: the dense embedding is the mean over all vectors, the first one, or that of the last token.
    """

    kind: Literal["text", "vision"]
    max_tokens: int = 0
    prefix: str = ""
    head: dict[str, Any] | None = None
    normalize: bool = True
    mask_rule: str = MASK_RULES[False]
    passage_prefix: str | None = None
    pooled: Pooled = "mean"

    @property
    def mask_punctuation(self) -> bool:
        """Whether tokens of punctuation alone take no part."""
        return self.mask_rule == MASK_RULES[True]

    def write(self, folder: Path) -> None:
        """Write ``encoder.json`` into ``folder``."""
        write_json(folder / CONTRACT_FILE, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> "EncoderContract | None":
        """The contract stored in ``folder``, None when the folder was not written by this project.

        Raises:
            ConfigError: it has a mask rule that this version does not know.
        """
        path = folder / CONTRACT_FILE
        if not path.exists():
            return None
        contract = cls(**json.loads(path.read_text(encoding="utf-8")))
        if contract.mask_rule not in MASK_RULES.values():
            known = "; ".join(MASK_RULES.values())
            raise ConfigError(f"{path}: mask rule {contract.mask_rule!r} is not known; expected one of: {known}")
        return contract


def check_layers(layers: Sequence[int], most: int, whose: str) -> None:
    """Whether a network of ``most`` layers has ``layers``; ``whose`` names it in the error.

    Raises:
        ConfigError: one is not there.
    """
    if wrong := [number for number in layers if not 0 <= number <= most]:
        raise ConfigError(
            f"objective: `layers` of a part asks for layer {wrong[0]} of {whose}, which has {most}; expected 0 "
            f"(embeddings) to {most}"
        )


class Encoder(nn.Module):
    """Backbone and head. Its forward takes and returns plain tensors, which ZeRO-3's module hooks understand."""

    def __init__(self, backbone: nn.Module, width: int, head: int | None, bias: bool = False) -> None:
        super().__init__()
        self.backbone = backbone
        self.head: nn.Module = nn.Identity() if head is None else nn.Linear(width, head, bias=bias)
        self.width = width if head is None else head
        self.packed = False
        self.readout = readout_of(backbone.config)
        self.layers: tuple[int, ...] = ()

    def pack(self) -> None:
        """From now on encode texts without padding.

        Raises:
            ConfigError: the backbone cannot do so.
        """
        prepare_packing(self.backbone)
        self.packed = True

    def expose(self, layers: Sequence[int], whose: str) -> None:
        """From now on also give the vectors of inner layers: 0 are the embeddings, n is what layer n, from 1, puts out.

        Args:
            layers: their numbers.
            whose: this encoder in the words of an error.

        Raises:
            ConfigError: the backbone has no such layer, or its inner layers have another width than its output.
        """
        config: Any = self.backbone.config
        check_layers(layers, int(config.num_hidden_layers), whose)
        if layers and width_of(config) != config.hidden_size:
            raise ConfigError(
                f"objective: `layers` of a part asks for inner layers of {whose}, whose vectors have "
                f"{config.hidden_size} numbers and those of its output {width_of(config)}; compare outputs only"
            )
        self.layers = tuple(layers)

    def head_contract(self) -> dict[str, Any] | None:
        """Sizes of the projection for :class:`EncoderContract`."""
        if isinstance(self.head, nn.Linear):
            return {"in": self.head.in_features, "out": self.head.out_features, "bias": self.head.bias is not None}
        return None

    def forward(self, **inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Token vectors (B, T, D) after the head; of packed texts those at padding are 0.

        With exposed layers a tuple, whose further members are their vectors, after the head as well, so that all have
        one width.
        """
        if not self.packed:
            every = vectors_of_layers(self.backbone, self.layers, **inputs)
            found = [self.head(states_BTH) for states_BTH in every]
        else:
            attention_BT = inputs["attention_mask"]
            every = packed_states(self.backbone, inputs["input_ids"], attention_BT, self.layers)
            found = [_padded(self.head(states_NH), attention_BT.bool()) for states_NH in every]
        return tuple(found) if self.layers else found[0]


def _padded(states_ND: Tensor, real_BT: Tensor) -> Tensor:
    x_BTD = states_ND.new_zeros(*real_BT.shape, states_ND.shape[-1])
    return x_BTD.index_put((real_BT,), states_ND)


def model_inputs(batch: TokenBatch | PatchBatch) -> dict[str, Tensor]:
    """The keyword arguments under which Hugging Face backbones expect ``batch``."""
    if isinstance(batch, TokenBatch):
        return {"input_ids": batch.ids_BT, "attention_mask": batch.attention_BT.long()}
    return {"pixel_values": batch.pixels_BCHW}


def token_states(
    found: Tensor | tuple[Tensor, ...],
    batch: TokenBatch | PatchBatch,
    readout: Readout = TEXT,
    layers: Sequence[int] = (),
) -> TokenStates:
    """What an encoder gave, with the masks that belong to ``batch``.

    Of images, vectors that stand for no patch take no part in token-level scores. Where ``readout`` names one vector as
    the dense embedding, the mean is over that one.

    Args:
        found: token vectors, or a tuple of them and of those of ``layers``.
        batch: what was encoded.
        readout: of the network.
        layers: exposed by the encoder.
    """
    x_BTD, *inner = found if isinstance(found, tuple) else (found,)
    of_layers = dict(zip(layers, inner, strict=True))
    if isinstance(batch, TokenBatch):
        attention_BT, mask_BT, idf_BT = batch.attention_BT, batch.mask_BT, batch.idf_BT
    else:
        attention_BT = torch.ones(x_BTD.shape[:2], dtype=torch.bool, device=x_BTD.device)
        mask_BT, idf_BT = attention_BT.clone(), None
        mask_BT[:, : readout.prefix] = False
    return TokenStates(x_BTD, mask_BT, pooled_over(attention_BT, readout), idf_BT, of_layers)


def pooler_option(folder: Path) -> dict[str, Any]:
    """Arguments that make the model of ``folder`` come without a pooler."""
    return _pooler_option(AutoConfig.from_pretrained(folder, local_files_only=True))


def _pooler_option(config: PretrainedConfig) -> dict[str, Any]:
    """BERT-like classes would build a pooler that nothing trains and no checkpoint of ours contains."""
    import inspect

    parameters = inspect.signature(_class_of(config)).parameters
    return {"add_pooling_layer": False} if "add_pooling_layer" in parameters else {}


def from_config(config: PretrainedConfig) -> nn.Module:
    """The backbone that ``config`` describes, without a pooler."""
    backbone: nn.Module = _class_of(config)(config, **_pooler_option(config))
    return backbone


def _class_of(config: PretrainedConfig) -> Any:
    from transformers import SiglipTextModel
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    # AutoModel knows this tower only as a part of the whole.
    return SiglipTextModel if config.model_type == "siglip_text_model" else MODEL_MAPPING[type(config)]


def load_head(encoder: Encoder, folder: Path) -> None:
    """Fill the head from the sentence-transformers Dense module that export writes beside the backbone.

    Raises:
        ConfigError: the folder's contract names a head but no Dense weights of that shape are there.
    """
    from safetensors.torch import load_file

    files = sorted(folder.glob("*_Dense/model.safetensors"))
    if len(files) != 1:
        raise ConfigError(
            f"backbone.pretrained: {folder} names a head but has {len(files)} Dense weight files; expected 1"
        )
    weights = load_file(files[0])
    encoder.head.load_state_dict({name.removeprefix("linear."): value for name, value in weights.items()})
