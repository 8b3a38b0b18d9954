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
    license: str | None = None
    """For the model card, in the Hub's spelling such as apache-2.0; null leaves it out."""
    max_shard_bytes: PositiveInt = 5_000_000_000
    """Weights are split into files of at most this size; the export needs as much memory."""
