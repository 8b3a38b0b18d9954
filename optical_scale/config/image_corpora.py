"""Which files make a corpus of captioned images, one schema per layout."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from optical_scale.config.schema import CorpusName, Schema


class Pictures(Schema):
    """How images are checked and stored."""

    faults: Literal["error", "drop"] = "error"
    """What becomes of missing, damaged and too large images: `drop` leaves them out and counts them by reason."""
    short_side: Annotated[int, Field(ge=16)] | None = None
    """Pixels to which the shorter side is reduced, never enlarged; null keeps the size."""
    quality: Annotated[int, Field(ge=1, le=95)] = 95
    """JPEG quality of images that have to be written anew; others keep their bytes."""
    max_pixels: PositiveInt = 64_000_000
    """Larger images are refused as decompression bombs."""


class Provenance(Schema):
    """Where a corpus comes from; it goes into the manifest."""

    license: str = ""
    """Terms of use, best an SPDX identifier: CC-BY-4.0."""
    origin: str = ""
    """Where the files were taken from, best a URL with a version."""


class _Images(Provenance):
    name: CorpusName
    """First part of every sample key."""
    pictures: Pictures = Pictures()
    """How images are checked and stored."""

    @property
    def key_prefixes(self) -> list[str]:
        """What the keys of the corpus start with."""
        return [self.name]


class Flickr30kEntities(_Images):
    """Images with captions whose phrases are linked to boxes, in the layout of Flickr30k-Entities."""

    format: Literal["flickr30k_entities"] = "flickr30k_entities"
    path: Path
    """Folder of Sentences/ and Annotations/."""
    split: Path
    """File with one image id per line; its name without suffix is the split that samples carry."""
    languages: Annotated[list[str], Field(min_length=1)] = ["en"]
    """en reads Sentences/, any other tag reads Sentences_{tag}/."""
    images: Path | None = None
    """Folder of the images; null means images/ inside `path`."""


class FlickrCaptions(_Images):
    """Caption files of Flickr8k and Flickr30k: token files, results.csv, captions.txt."""

    format: Literal["flickr_captions"] = "flickr_captions"
    captions: Annotated[dict[str, Path], Field(min_length=1)]
    """By language, its file; the layout is recognised by its first line."""
    images: Path
    """Folder of the images."""
    splits: dict[str, Path] = {}
    """By name of the split, a file with one image id per line; images in none are left out. Empty: all images."""


class Karpathy(_Images):
    """Karpathy's JSON files of Flickr8k, Flickr30k and COCO."""

    format: Literal["karpathy"] = "karpathy"
    path: Path
    """The file."""
    images: Path
    """Folder of the images; for COCO the folder that holds train2014/ and val2014/."""
    splits: list[str] = []
    """Wanted splits: train, restval, val, test; empty takes all."""
    language: str = "en"
    """BCP-47 tag of the sentences, for translations of these files."""


class CaptionLines(_Images):
    """A list of images and files of captions line by line: Multi30k (both tasks), XTD10."""

    format: Literal["caption_lines"] = "caption_lines"
    image_list: Path
    """One image name per line."""
    captions: Annotated[dict[str, Path | Annotated[list[Path], Field(min_length=1)]], Field(min_length=1)]
    """By language, one file, or several that each describe all images."""
    images: Path
    """Folder of the images."""
    split: str = ""
    """Which split the files are; samples carry it."""


class Crossmodal3600(_Images):
    """Crossmodal-3600: captions.jsonl."""

    format: Literal["crossmodal3600"] = "crossmodal3600"
    path: Path
    """The file."""
    images: Path
    """Folder of {image key}.jpg."""
    languages: list[str] | None = None
    """Wanted languages; null takes all 36."""


ImageCorpus = Flickr30kEntities | FlickrCaptions | Karpathy | CaptionLines | Crossmodal3600
"""Formats of captioned images."""
