"""What `optical-scale export` is told."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from optical_scale.config.schema import Schema

HubName = Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]


class ExportConfig(Schema):
    """`optical-scale export`: a checkpoint becomes a folder for transformers and sentence-transformers."""

    checkpoint: Path
    """A run folder, whose newest complete checkpoint is taken, or one step folder."""
    output: Path
    """Folder to create; it must not hold anything."""
    tower: Literal["text", "vision"] | None = None
    """Of a student with two; null takes the text tower."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the exported weights."""
    layout: Literal["sentence_transformers", "pylate", "vision_text"] = "sentence_transformers"
    """What the folder is besides a transformers model. sentence_transformers: dense vectors by mean pooling. pylate:
    token vectors for MaxSim, which sentence-transformers' multi-vector class reads as well. vision_text: an image
    encoder in `vision`, a text encoder in `text`, and both as one model of sentence-transformers 6."""
    text: Path | None = None
    """Folder of the text encoder for `layout: vision_text`, for example an exported student of the same teacher; null
    takes the run's teacher."""
    trim_to: list[Path] = []
    """Shard folders, or files of one text per line: the vocabulary keeps what they need. Empty keeps all pieces."""
    license: str | None = None
    """For the model card, in the Hub's spelling such as apache-2.0; null leaves it out."""
    corpora: dict[str, str] = {}
    """For the model card: licences of the training corpora by name, for example {europarl: cc0-1.0}."""
    datasets: list[HubName] = []
    """For the model card: training corpora that lie on the Hugging Face hub, owner/name."""
    base_model: HubName | None = None
    """For the model card: what the student started from; null takes the name that the hub's cache gives the folder."""
    teacher: HubName | None = None
    """For the model card: the teacher's name on the hub; null takes that of the cache, or else the folder's."""
    report: Path | None = None
    """For the model card: report.json of `optical-scale evaluate`, whose gap between languages it shows."""
    onnx: bool = False
    """Write onnx/model.onnx besides: float32, any number of inputs and tokens, token and pooled vectors. Needs the
    extra `onnx`, and memory for the whole model."""
    max_shard_bytes: PositiveInt = 5_000_000_000
    """Weights are split into files of at most this size."""
    push_to: HubName | None = None
    """Repository on the Hugging Face hub, owner/name, that receives the proved folder; created private if need be.
    Needs a login (`hf auth login` or HF_TOKEN)."""

    @model_validator(mode="after")
    def _fits(self) -> "ExportConfig":
        if self.text is not None and self.layout != "vision_text":
            raise ValueError("`text` is for `layout: vision_text`; set that too")
        if self.layout == "vision_text" and self.trim_to:
            raise ValueError("`trim_to` cuts the vocabulary of a text student; `layout: vision_text` is for images")
        return self
