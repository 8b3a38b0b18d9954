"""What reads the inputs of each side: tokenizers and image transforms, as configured."""

from typing import Any

from optical_scale.backbones.folders import backbone_folder, network_config
from optical_scale.backbones.fresh import backbone_config
from optical_scale.backbones.readout import VISION, Readout, readout_of
from optical_scale.backbones.tokenizers import TextTokenizer
from optical_scale.backbones.vision import ImageTransform, Pixels
from optical_scale.config.backbones import Backbone, TextBackbone, VisionBackbone
from optical_scale.config.run import Student, Teacher, TrainConfig
from optical_scale.errors import ConfigError

Prepare = TextTokenizer | ImageTransform
"""What makes a network's inputs."""


def text_tokenizer(config: TextBackbone) -> TextTokenizer:
    """The tokenizer that belongs to a text backbone."""
    folder = config.tokenizer or config.pretrained
    assert folder is not None, "the schema demands one of both"
    return TextTokenizer.load(
        backbone_folder(folder),
        config.max_tokens,
        config.prefix,
        config.passage_prefix,
        config.mask_punctuation,
        fill=model_type(config) == "siglip_text_model",
    )


def reads(config: Backbone) -> Prepare:
    """What makes the inputs of a backbone."""
    return image_transform(config) if isinstance(config, VisionBackbone) else text_tokenizer(config)


def reads_passages(config: Backbone) -> Prepare:
    """What makes the inputs of a backbone that reads passages, or images."""
    return for_passages(reads(config))


def for_passages(prepare: Prepare) -> Prepare:
    """The same for passages; images have no other form."""
    return prepare.for_passages() if isinstance(prepare, TextTokenizer) else prepare


def teachers_side(config: TrainConfig) -> Prepare:
    """What reads the teacher's side of a training: images, or passages unless the teacher reads queries."""
    if config.teacher is not None and config.teacher.reads == "queries":
        return reads(config.teacher.backbone)
    return reads_passages((config.teacher or config.student).backbone)


def students_side(prepare: Prepare, student: Student) -> Prepare:
    """What reads the student's side of a training: images, or queries unless it reads passages."""
    return for_passages(prepare) if student.reads == "passages" else prepare


def readout_of_teacher(config: Teacher) -> Readout:
    """What the vectors of a teacher from a folder stand for."""
    assert config.backbone.pretrained is not None, "the schema demands weights for a cache"
    return readout_of(network_config(config.backbone.pretrained, config.backbone.kind))


def depth_of_teacher(config: Teacher) -> int:
    """Layers of a teacher from a folder."""
    backbone = config.backbone
    assert backbone.pretrained is not None, "the schema demands weights for a cache"
    assert isinstance(backbone, TextBackbone), "the schema demands it of a cache"
    network: Any = network_config(backbone.pretrained, backbone.kind)
    return int(network.num_hidden_layers) if backbone.layers is None else len(backbone.layers)


def model_type(config: Backbone) -> str:
    """Transformers' name of a network's kind."""
    if config.architecture is not None:
        return str(config.architecture["model_type"])
    assert config.pretrained is not None, "the schema demands one of both"
    return str(network_config(config.pretrained, config.kind).model_type)


def image_transform(config: VisionBackbone) -> ImageTransform:
    """How images are prepared: as the folder says, or as is usual for a network from scratch.

    Raises:
        ConfigError: a network whose vectors are not known to be patches, or one that cannot read images of this size.
    """
    known: Any
    if config.architecture is not None:
        known, where = backbone_config(config.architecture), "backbone.architecture"
    else:
        assert config.pretrained is not None, "the schema demands one of both"
        known, where = network_config(config.pretrained, "vision"), f"backbone.pretrained: {config.pretrained}"
    if known.model_type not in VISION:
        raise ConfigError(f"{where} is a {known.model_type}; images are read by {', '.join(VISION)}")
    pixels = Pixels(int(known.image_size)) if config.pretrained is None else Pixels.read(config.pretrained)
    if pixels.size != known.image_size and not known.model_type.startswith("dinov2"):  # those interpolate
        raise ConfigError(
            f"{where} reads images of {known.image_size} pixels, its preprocessor_config.json makes {pixels.size}; "
            "correct that file"
        )
    return ImageTransform(pixels, int(known.patch_size), readout_of(known).prefix)
