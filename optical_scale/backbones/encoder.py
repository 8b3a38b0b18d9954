"""An encoder is a Hugging Face backbone followed by an optional linear head; it maps a batch to token vectors."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import AutoConfig, PretrainedConfig

from optical_scale.backbones.packing import packed_states, prepare_packing
from optical_scale.backbones.readout import TEXT, Pooled, Readout, pooled_over, readout_of, token_vectors
from optical_scale.batch import PatchBatch, TokenBatch, TokenStates
from optical_scale.errors import ConfigError
from optical_scale.runtime.files import write_json

CONTRACT_FILE = "encoder.json"
MASK_RULE = "special tokens that the tokenizer adds are excluded"


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
    mask_rule: str = MASK_RULE
    passage_prefix: str | None = None
    pooled: Pooled = "mean"

    def write(self, folder: Path) -> None:
        """Write ``encoder.json`` into ``folder``."""
        write_json(folder / CONTRACT_FILE, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> "EncoderContract | None":
        """The contract stored in ``folder``, None when the folder was not written by this project."""
        path = folder / CONTRACT_FILE
        return cls(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


class Encoder(nn.Module):
    """Backbone and head. Its forward takes and returns plain tensors, which ZeRO-3's module hooks understand."""

    def __init__(self, backbone: nn.Module, width: int, head: int | None, bias: bool = False) -> None:
        super().__init__()
        self.backbone = backbone
        self.head: nn.Module = nn.Identity() if head is None else nn.Linear(width, head, bias=bias)
        self.width = width if head is None else head
        self.packed = False
        self.readout = readout_of(backbone.config)

    def pack(self) -> None:
        """From now on encode texts without padding.

        Raises:
            ConfigError: the backbone cannot do so.
        """
        prepare_packing(self.backbone)
        self.packed = True

    def head_contract(self) -> dict[str, Any] | None:
        """Sizes of the projection for :class:`EncoderContract`."""
        if isinstance(self.head, nn.Linear):
            return {"in": self.head.in_features, "out": self.head.out_features, "bias": self.head.bias is not None}
        return None

    def forward(self, **inputs: Tensor) -> Tensor:
        """Token vectors (B, T, D) after the head; of packed texts those at padding are 0."""
        states: Tensor
        if not self.packed:
            states = self.head(token_vectors(self.backbone, **inputs))
            return states
        attention_BT = inputs["attention_mask"]
        states = self.head(packed_states(self.backbone, inputs["input_ids"], attention_BT))
        x_BTD = states.new_zeros(*attention_BT.shape, states.shape[-1])
        return x_BTD.index_put((attention_BT.bool(),), states)


def model_inputs(batch: TokenBatch | PatchBatch) -> dict[str, Tensor]:
    """The keyword arguments under which Hugging Face backbones expect ``batch``."""
    if isinstance(batch, TokenBatch):
        return {"input_ids": batch.ids_BT, "attention_mask": batch.attention_BT.long()}
    return {"pixel_values": batch.pixels_BCHW}


def token_states(x_BTD: Tensor, batch: TokenBatch | PatchBatch, readout: Readout = TEXT) -> TokenStates:
    """Attach the masks that belong to ``batch``.

    Of images, vectors that stand for no patch take no part in token-level scores. Where ``readout`` names one vector as
    the dense embedding, the mean is over that one.
    """
    if isinstance(batch, TokenBatch):
        attention_BT, mask_BT = batch.attention_BT, batch.mask_BT
    else:
        attention_BT = torch.ones(x_BTD.shape[:2], dtype=torch.bool, device=x_BTD.device)
        mask_BT = attention_BT.clone()
        mask_BT[:, : readout.prefix] = False
    return TokenStates(x_BTD, mask_BT, pooled_over(attention_BT, readout))


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
