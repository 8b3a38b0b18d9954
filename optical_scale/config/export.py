"""What `optical-scale export` is told."""

from pathlib import Path
from typing import Literal

from pydantic import PositiveInt

from optical_scale.config.schema import Schema


class ExportConfig(Schema):
    """`optical-scale export`: a checkpoint becomes a folder for transformers and sentence-transformers."""

    checkpoint: Path
    """A run folder, whose newest complete checkpoint is taken, or one step folder."""
    output: Path
    """Folder to create; it must not hold anything."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the exported weights."""
    layout: Literal["sentence_transformers", "pylate"] = "sentence_transformers"
    """What the folder of a text encoder is besides a transformers model. sentence_transformers: dense vectors by mean
    pooling. pylate: token vectors for MaxSim, which sentence-transformers' multi-vector class reads as well."""
    trim_to: list[Path] = []
    """Shard folders, or files of one text per line: the vocabulary keeps what they need. Empty keeps all pieces."""
    license: str | None = None
    """For the model card, in the Hub's spelling such as apache-2.0; null leaves it out."""
    corpora: dict[str, str] = {}
    """For the model card: licences of the training corpora by name, for example {europarl: cc0-1.0}."""
    report: Path | None = None
    """For the model card: report.json of `optical-scale evaluate`, whose gap between languages it shows."""
    max_shard_bytes: PositiveInt = 5_000_000_000
    """Weights are split into files of at most this size."""
