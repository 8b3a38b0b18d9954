"""Backbone configurations become encoders with their input preparation."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, NamedTuple, assert_never

import torch
from torch import nn

from optical_scale.backbones.adapters import add_adapters, freeze
from optical_scale.backbones.encoder import MASK_RULES, Encoder, EncoderContract, load_head
from optical_scale.backbones.folders import backbone_folder, read_contract
from optical_scale.backbones.fresh import backbone_config, build_backbone, empty_backbone
from optical_scale.backbones.packing import FIRST_POSITION
from optical_scale.backbones.pretrained import Pretrained, Store
from optical_scale.backbones.readout import width_of
from optical_scale.backbones.skeleton import skeleton
from optical_scale.backbones.surgery import keep_layers, match_vocabulary, set_dropout, translate_vocabulary
from optical_scale.backbones.tokenizers import TextTokenizer
from optical_scale.backbones.vision import ImageTransform
from optical_scale.config.backbones import Backbone, TextBackbone, VisionBackbone
from optical_scale.config.deepspeed import derive_teacher
from optical_scale.config.engine import StudentEngine, TeacherEngine
from optical_scale.config.run import Student, Teacher, TrainConfig
from optical_scale.config.stream import Stream
from optical_scale.engine import teacher as engine
from optical_scale.engine.partition import Partition
from optical_scale.errors import ConfigError
from optical_scale.recipes.build_inputs import image_transform, model_type, text_tokenizer
from optical_scale.recipes.build_stream import sources
from optical_scale.records import TextPair
from optical_scale.runtime.world import World

logger = logging.getLogger(__name__)

BITEXT_PAIRS = 100_000
"""Pairs from which ``vocabulary: translate`` learns its dictionary."""


class Placement(NamedTuple):
    """How pretrained weights are kept: their type, and who takes each as soon as it is read (None leaves it whole)."""

    dtype: torch.dtype = torch.float32
    store: Store | None = None


WHOLE = Placement()
"""In fp32, all of it in this process."""


def placement(engine: StudentEngine | TeacherEngine, derived: dict[str, Any]) -> Placement:
    """What an engine wants: its own precision, at ZeRO stage 3 a share of every parameter.

    Args:
        engine: its configuration.
        derived: DeepSpeed's configuration of it.
    """
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[engine.precision]
    return Placement(dtype, Partition(derived) if engine.zero_stage == 3 else None)


def text_encoder(
    config: TextBackbone,
    tokenizer: TextTokenizer,
    bitext: Callable[[], Iterable[tuple[str, str]]] | None = None,
    place: Placement = WHOLE,
) -> Encoder:
    """A text encoder, from scratch or from a folder.

    Args:
        config: its description.
        tokenizer: what its inputs come from.
        bitext: opens the training pairs for ``vocabulary: translate``; None where there are none.
        place: how pretrained weights are kept.

    Raises:
        ConfigError: the folder was trained with other prefixes, masks or another head than the configuration says,
            texts may be longer than the network's positions, or ``vocabulary: translate`` without bitext.
    """
    if config.architecture is not None:
        backbone = build_backbone(scratch_architecture(config, tokenizer), *place)
        if config.dropout is not None:
            set_dropout(backbone, config.dropout)
        _check_positions(config, backbone)
        return _with_head(backbone, config.head).to(place.dtype)
    assert config.pretrained is not None
    pretrained = Pretrained(backbone_folder(config.pretrained))
    _check_positions(config, pretrained.model)
    if config.dropout is not None:
        set_dropout(pretrained.model, config.dropout)
    if config.layers is not None:
        keep_layers(pretrained.model, config.layers)
    if config.vocabulary != "keep":
        _change_vocabulary(pretrained, config, tokenizer, bitext)
    backbone = pretrained.fill(*place)
    if config.layers is None and config.vocabulary == "keep":
        return _finished(config.pretrained, config, backbone, pretrained.projection()).to(place.dtype)
    return _with_head(backbone, config.head).to(place.dtype)


def _check_positions(config: TextBackbone, backbone: nn.Module) -> None:
    known: Any = backbone.config
    fills = known.model_type == "siglip_text_model"
    if known.model_type not in FIRST_POSITION and not fills and known.model_type != "clip_text_model":
        return
    start = FIRST_POSITION.get(known.model_type, lambda _: 0)(known)
    positions = int(known.max_position_embeddings) - start
    if config.max_tokens > positions or (fills and config.max_tokens < positions):
        raise ConfigError(
            f"backbone.max_tokens is {config.max_tokens}, but {known.model_type} has {positions} positions"
            f"{' and was trained with texts filled up to all of them' if fills else ''}; set it to {positions}"
            f"{'' if fills else ' or less'}"
        )


def live_teacher(
    config: TrainConfig, prepare: TextTokenizer | ImageTransform, device: torch.device
) -> engine.TeacherEngine:
    """The frozen network itself, for training or for writing its cache; ``prepare`` makes its inputs."""
    assert config.teacher is not None
    if config.teacher.backbone.pretrained is None:
        logger.warning("the teacher is random and teaches nothing; give its weights by teacher.backbone.pretrained")
    derived = derive_teacher(
        config.teacher.engine,
        micro_batch_pairs=config.stream.pairs_per_step // config.stream.lanes,
        bucket_elements=config.student.engine.bucket_elements,
        largest_share=share_of_largest(config.teacher),
    )
    place = placement(config.teacher.engine, derived)
    if isinstance(config.teacher.backbone, VisionBackbone):
        encoder = vision_encoder(config.teacher.backbone, place)[0]
    else:
        assert isinstance(prepare, TextTokenizer), "of the same configuration"
        encoder = text_encoder(config.teacher.backbone, prepare, place=place)
    if config.teacher.engine.packed:
        encoder.pack()
    if layers := config.cached_layers or config.teacher_layers:
        also = " (or teacher.cache.layers does)" if config.cached_layers else ""
        encoder.expose(layers, f"the teacher{also}")
    return engine.TeacherEngine(encoder, derived, device)


def empty_encoder(config: Backbone) -> Encoder:
    """The encoder that ``config`` describes, with its layers, vocabulary and head, and no values.

    A head that `pretrained` brings along is left out.
    """
    if isinstance(config, VisionBackbone):
        return _with_head(_empty_backbone(config), config.head)
    if config.architecture is not None:
        architecture = scratch_architecture(config, text_tokenizer(config))
        return _with_head(empty_backbone(backbone_config(architecture)), config.head)
    backbone = _empty_backbone(config)
    if config.layers is not None:
        keep_layers(backbone, config.layers)
    if config.vocabulary != "keep":
        width = backbone.get_input_embeddings().embedding_dim  # type: ignore[operator]
        pieces = len(text_tokenizer(config).tokenizer)
        backbone.set_input_embeddings(nn.Embedding(pieces, width, device="meta"))  # type: ignore[operator]
    return _with_head(backbone, config.head)


def _empty_backbone(config: Backbone) -> nn.Module:
    if config.architecture is not None:
        return empty_backbone(backbone_config(config.architecture))
    assert config.pretrained is not None, "the schema demands one of both"
    return skeleton(backbone_folder(config.pretrained), config.kind)


def empty_student(config: Student) -> Encoder:
    """The trained side without values: what it trains, and what it keeps, is marked as in a run."""
    encoder = empty_encoder(config.backbone)
    _mark_trained(encoder, config)
    return encoder


def share_of_largest(side: Student | Teacher) -> int:
    """Elements of the largest parameter that one rank keeps where parameters rest on a disk, otherwise 0."""
    if side.engine.offload_parameters != "nvme":
        return 0
    ranks = World.from_env().size
    return max(-(-parameter.numel() // ranks) for parameter in empty_encoder(side.backbone).parameters())


def scratch_architecture(config: TextBackbone, tokenizer: TextTokenizer) -> dict[str, Any]:
    """`architecture` with what follows from the tokenizer; a larger table of embeddings may be asked for."""
    assert config.architecture is not None
    known = tokenizer.tokenizer
    return (
        {"max_position_embeddings": config.max_tokens + known.pad_token_id + 1}
        | config.architecture
        | {
            "vocab_size": max(len(known), config.architecture.get("vocab_size", 0)),
            "pad_token_id": known.pad_token_id,
            "bos_token_id": known.bos_token_id,
            "eos_token_id": known.eos_token_id,
        }
    )


def _change_vocabulary(
    pretrained: Pretrained,
    config: TextBackbone,
    tokenizer: TextTokenizer,
    bitext: Callable[[], Iterable[tuple[str, str]]] | None,
) -> None:
    assert config.pretrained is not None
    old = TextTokenizer.load(backbone_folder(config.pretrained), config.max_tokens)
    if config.vocabulary == "translate" and bitext is None:
        raise ConfigError(
            "backbone.vocabulary: `translate` learns from the bitext that a student is trained on; there is none "
            "here. Choose keep or match"
        )
    pretrained.read_table()
    if config.vocabulary == "translate" and bitext is not None:
        translate_vocabulary(
            pretrained.model, old.tokenizer, tokenizer.tokenizer, bitext(), max_tokens=config.max_tokens
        )
    else:
        match_vocabulary(pretrained.model, old.tokenizer, tokenizer.tokenizer)


def vision_encoder(config: VisionBackbone, place: Placement = WHOLE) -> tuple[Encoder, ImageTransform]:
    """A vision encoder and the preparation of its images."""
    prepare = image_transform(config)
    if config.architecture is not None:
        encoder = _with_head(build_backbone(config.architecture, *place), config.head)
    else:
        assert config.pretrained is not None
        pretrained = Pretrained(config.pretrained, "vision")
        encoder = _finished(config.pretrained, config, pretrained.fill(*place), pretrained.projection())
    return encoder.to(place.dtype), prepare


def student_encoder(
    config: Student, bitext: Callable[[], Iterable[tuple[str, str]]], place: Placement = WHOLE
) -> tuple[Encoder, TextTokenizer | ImageTransform]:
    """The trained side, text or vision; ``bitext`` opens its training pairs."""
    encoder, prepare = _student(config.backbone, bitext, place)
    _mark_trained(encoder, config)
    return encoder, prepare


def _mark_trained(encoder: Encoder, config: Student) -> None:
    if config.lora is not None:
        lora = config.lora
        add_adapters(encoder, lora.rank, alpha=lora.alpha, dropout=lora.dropout, targets=lora.targets)
    freeze(encoder, config.freeze)


def _student(
    config: Backbone, bitext: Callable[[], Iterable[tuple[str, str]]], place: Placement
) -> tuple[Encoder, TextTokenizer | ImageTransform]:
    match config:
        case TextBackbone():
            if model_type(config) == "siglip_text_model":
                raise ConfigError(
                    "student.backbone: transformers' AutoModel has no class for siglip_text_model alone, so nothing "
                    "could load the exported student; take another text network. As a teacher it is fine"
                )
            prepared = text_tokenizer(config)
            return text_encoder(config, prepared, bitext, place), prepared
        case VisionBackbone():
            return vision_encoder(config, place)
        case _:
            assert_never(config)


def bitext_of(stream: Stream) -> Iterator[tuple[str, str]]:
    """At most :data:`BITEXT_PAIRS` pairs, spread evenly over every source, sources in turn; equal on all ranks."""
    found = sources(stream, "bitext")
    share = BITEXT_PAIRS // len(found)
    steps = [math.ceil(len(source) / max(1, share)) for source in found]
    spread = (map(source.__getitem__, range(0, len(source), step)) for source, step in zip(found, steps, strict=True))
    for pair in chain.from_iterable(zip_longest(*spread)):
        if isinstance(pair, TextPair):
            yield pair.source, pair.target


def contract_of(encoder: Encoder, prepare: TextTokenizer | ImageTransform) -> EncoderContract:
    """What an exported folder must remember about the use of its weights."""
    if isinstance(prepare, TextTokenizer):
        return EncoderContract(
            "text",
            prepare.max_tokens,
            prepare.prefix,
            encoder.head_contract(),
            mask_rule=MASK_RULES[prepare.mask_punctuation],
            passage_prefix=prepare.passage_prefix,
            pooled=encoder.readout.pooled,
        )
    return EncoderContract("vision", head=encoder.head_contract(), pooled=encoder.readout.pooled)


def _with_head(backbone: object, head: int | None, bias: bool = False) -> Encoder:
    width = width_of(backbone.config)  # type: ignore[attr-defined]
    return Encoder(backbone, width, head, bias)  # type: ignore[arg-type]


def _finished(folder: Path, config: Backbone, backbone: object, projection: torch.Tensor | None) -> Encoder:
    """An encoder from a complete folder: the head, if any, is the one that was trained with it."""
    contract = read_contract(folder)
    if contract is not None:
        _check_contract(folder, config, contract)
    if contract is None or contract.head is None:
        own = None if projection is None else len(projection)
        encoder = _with_head(backbone, config.head or own)
        if projection is not None and encoder.width == own:
            encoder.head.load_state_dict({"weight": projection})
        return encoder
    encoder = _with_head(backbone, contract.head["out"], contract.head["bias"])
    load_head(encoder, folder)
    return encoder


def _check_contract(folder: Path, config: Backbone, contract: EncoderContract) -> None:
    """Folders of other libraries may say nothing of a prefix, and may get a head; this project's say all."""
    own = EncoderContract.read(folder) is not None
    if contract.kind != config.kind:
        raise ConfigError(f"backbone.pretrained: {folder} holds a {contract.kind} encoder; expected kind {config.kind}")
    if isinstance(config, TextBackbone):
        for name in ("prefix", "passage_prefix"):
            trained, found = getattr(contract, name), getattr(config, name)
            if trained != found and (own or trained):
                raise ConfigError(
                    f"backbone.{name}: {folder} was trained with {name} {trained!r}, found {found!r}; set it so"
                )
    if isinstance(config, TextBackbone) and config.mask_punctuation != contract.mask_punctuation:
        trained, found = (str(rule).lower() for rule in (contract.mask_punctuation, config.mask_punctuation))
        if own:
            raise ConfigError(
                f"backbone.mask_punctuation: {folder} was trained with {trained}, found {found}; set it so"
            )
        if contract.mask_punctuation:
            logger.warning("%s leaves punctuation out of documents; mask_punctuation: true would do so here", folder)
    if config.head is not None and (contract.head or {}).get("out") != config.head and (own or contract.head):
        raise ConfigError(
            f"backbone.head: {folder} was trained with head {contract.head}, found {config.head}; leave it out"
        )
