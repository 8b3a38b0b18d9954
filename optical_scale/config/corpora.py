"""Which files make a corpus, one schema per format."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from optical_scale.config.schema import Schema

CorpusName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=40)]
"""Lower-case letters, digits, `-` and `_`: the name is the first part of every sample key."""


class Moses(Schema):
    """Bitext in two files, line n of one translating line n of the other; plain, gzip, bzip2 or xz."""

    format: Literal["moses"] = "moses"
    name: CorpusName
    """First part of every sample key; the same name may serve several languages."""
    source: Path
    """The English side."""
    target: Path
    """The other side."""
    language: str
    """BCP-47 tag of the other side, for example sw, pt-BR or zh-Hans."""


class Flickr30kEntities(Schema):
    """Images with captions whose phrases are linked to boxes, in the layout of Flickr30k-Entities."""

    format: Literal["flickr30k_entities"] = "flickr30k_entities"
    name: CorpusName
    """First part of every sample key."""
    path: Path
    """Folder of Sentences/ and Annotations/."""
    split: Path
    """File with one image id per line."""
    languages: Annotated[list[str], Field(min_length=1)] = ["en"]
    """en reads Sentences/, any other tag reads Sentences_{tag}/."""
    images: Path | None = None
    """Folder of the images; null means images/ inside `path`."""


Corpus = Annotated[Moses | Flickr30kEntities, Field(discriminator="format")]
"""One corpus; `format` chooses the schema."""
