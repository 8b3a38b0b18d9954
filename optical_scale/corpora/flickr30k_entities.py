"""Flickr30k-Entities: images, five captions each, phrases of the captions linked to boxes of the image.

Plummer et al., "Flickr30k Entities: Collecting Region-to-Phrase Correspondences for Richer Image-to-Sentence Models",
ICCV 2015. Folder layout as published: ``Sentences/{id}.txt`` and ``Annotations/{id}.xml``, images beside them.
"""

import io
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from optical_scale.corpora.reader import check_language, read_lines, sanitize_key
from optical_scale.errors import CorpusError
from optical_scale.records import Box, Caption, CaptionedImage, Phrase

_SUFFIXES = (".jpg", ".jpeg", ".png")
_EXTENSIONS = {"JPEG": "jpg", "PNG": "png"}
_PHRASE = re.compile(r"\[/EN#(?P<entity>[0-9]+)/(?P<kind>[^\s\[\]]+) (?P<text>[^\[\]]+)\]")
_MARKER = re.compile(r"\[/?EN#|\[/[A-Z]{2}#")
_ASPECT_TOLERANCE = 0.02


@dataclass(frozen=True)
class Flickr30kEntitiesCorpus:
    """Images of one split with captions in one or more languages, phrases and boxes.

    Attributes:
        name: corpus name; keys are ``{name}-{image id}``.
        folder: holds ``Sentences``, ``Annotations`` and, unless ``images`` says otherwise, ``images``.
        split_file: one image id per line, with or without ``.jpg``.
        languages: tags; ``en`` reads ``Sentences/{id}.txt``, another reads ``Sentences_{tag}/{id}.txt`` of the same
            syntax, whose entity ids mean the same boxes.
        images: folder of ``{id}.jpg`` or ``{id}.png``, in any resolution of the annotated aspect ratio.

    Raises:
        CorpusError: a language is no tag, or none is given.
    """

    name: str
    folder: Path
    split_file: Path
    languages: tuple[str, ...] = ("en",)
    images: Path | None = None

    def __post_init__(self) -> None:
        if not self.languages:
            raise CorpusError(f"{self.name}: no caption language; expected for example `en`")
        for language in self.languages:
            check_language(language)

    def count(self) -> int:
        """Number of images of the split.

        Raises:
            CorpusError: the split is empty or repeats an id, or an image, a sentence or an annotation file is missing.
        """
        return len(self._image_paths)

    @cached_property
    def _image_paths(self) -> dict[str, Path]:
        """Path by image id, in split order, after checking that every file exists."""
        ids = self._read_split()
        folder = self.images or self.folder / "images"
        if not folder.is_dir():
            raise CorpusError(f"{folder}: no such folder; expected the images {{id}}.jpg or {{id}}.png")
        by_id = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in _SUFFIXES}
        _check_all_there(self.split_file, ids, folder / "{id}.jpg", set(by_id))
        for language in self.languages:
            texts = self._sentences(language)
            _check_all_there(self.split_file, ids, texts / "{id}.txt", {path.stem for path in texts.glob("*.txt")})
        boxes = self.folder / "Annotations"
        _check_all_there(self.split_file, ids, boxes / "{id}.xml", {path.stem for path in boxes.glob("*.xml")})
        return {image_id: by_id[image_id] for image_id in ids}

    def _read_split(self) -> list[str]:
        lines: dict[str, int] = {}
        for number, line in enumerate(read_lines(self.split_file), start=1):
            image_id = line.strip().removesuffix(".jpg")
            if not image_id:
                continue
            if not re.fullmatch(r"[\w-]+", image_id, re.ASCII):
                raise CorpusError(f"{self.split_file}:{number}: {line!r} is no image id; expected one per line")
            if (first := lines.setdefault(image_id, number)) != number:
                raise CorpusError(f"{self.split_file}:{number}: image {image_id} is also on line {first}; remove one")
        if not lines:
            raise CorpusError(f"{self.split_file}: the file is empty; expected one image id per line")
        return list(lines)

    def _sentences(self, language: str) -> Path:
        return self.folder / ("Sentences" if language == "en" else f"Sentences_{language}")

    def __iter__(self) -> Iterator[CaptionedImage]:
        """Stream the images in the order of the split file.

        Raises:
            CorpusError: as :meth:`count`, before the first image; or a file is malformed, with file and line.
        """
        self.count()
        for image_id, path in self._image_paths.items():
            image, extension, size = _read_image(path)
            yield CaptionedImage(
                key=sanitize_key(f"{self.name}-{image_id}"),
                image=image,
                extension=extension,
                width=size[0],
                height=size[1],
                captions=tuple(
                    caption
                    for language in self.languages
                    for caption in read_captions(self._sentences(language) / f"{image_id}.txt", language)
                ),
                regions=read_regions(self.folder / "Annotations" / f"{image_id}.xml", size),
                corpus=self.name,
            )


def _check_all_there(split: Path, ids: list[str], pattern: Path, present: set[str]) -> None:
    missing = [image_id for image_id in ids if image_id not in present]
    if missing:
        raise CorpusError(
            f"{split} lists {len(ids):,} images, but {len(missing):,} have no file {pattern}; the first is "
            f"{missing[0]}. Add the files, or name a split file that lists only what is there"
        )


def read_captions(path: Path, language: str) -> tuple[Caption, ...]:
    """Read captions with phrases marked as ``[/EN#id/type words]``; a type may have parts, as ``people/animals``.

    Raises:
        CorpusError: a marker is malformed (with file and line), or the file has no caption.
    """
    lines = enumerate(read_lines(path), start=1)
    captions = tuple(
        _parse_caption(line.strip(), language, f"{path}:{number}") for number, line in lines if line.strip()
    )
    if not captions:
        raise CorpusError(f"{path}: the file has no caption; expected one per line")
    return captions


def _parse_caption(line: str, language: str, where: str) -> Caption:
    text, phrases, position = "", [], 0
    for match in _PHRASE.finditer(line):
        text += line[position : match.start()]
        phrases.append(Phrase(match["entity"], match["kind"], len(text), len(text) + len(match["text"])))
        text += match["text"]
        position = match.end()
    text += line[position:]
    if marker := _MARKER.search(text):
        raise CorpusError(
            f"{where}: malformed phrase at {text[marker.start() : marker.start() + 40]!r}; "
            "expected `[/EN#id/type words]` with a closing bracket and no bracket inside"
        )
    return Caption(language, text, tuple(phrases))


def read_regions(path: Path, size: tuple[int, int]) -> Mapping[str, tuple[Box, ...]]:
    """Read the boxes of one annotation file, by entity id, scaled to an image of ``size`` (width, height) pixels.

    Files count pixels from 1 and include the last one; boxes here count from 0 and exclude it. Entities without a box
    (``<scene>1``, ``<nobndbox>1``) are absent from the result.

    Raises:
        CorpusError: the XML is malformed or declares a DOCTYPE, a box is empty or outside, or the annotated picture has
            another aspect ratio than the image.
    """
    root = _parse_xml(path)
    annotated = _number(root, "size/width", path), _number(root, "size/height", path)
    if min(annotated) < 1 or abs(size[0] * annotated[1] / (size[1] * annotated[0]) - 1) > _ASPECT_TOLERANCE:
        raise CorpusError(
            f"{path}: describes a picture of {annotated[0]:g}x{annotated[1]:g} pixels, the image has "
            f"{size[0]}x{size[1]}, another shape; expected the annotated picture, resized at most"
        )
    regions: dict[str, list[Box]] = {}
    for number, entry in enumerate(root.iterfind("object"), start=1):
        names = [(name.text or "").strip() for name in entry.iterfind("name")]
        if not names or "" in names:
            raise CorpusError(f"{path}: object {number} has no <name>; expected the entity ids it shows")
        if entry.find("bndbox") is not None:
            box = _read_box(entry, annotated, size, f"{path}: object {number}", path)
            for name in names:
                regions.setdefault(name, []).append(box)
    return {name: tuple(boxes) for name, boxes in regions.items()}


def _read_box(
    entry: ElementTree.Element, annotated: tuple[float, float], size: tuple[int, int], where: str, path: Path
) -> Box:
    left, top, right, bottom = (_number(entry, f"bndbox/{side}", path) for side in ("xmin", "ymin", "xmax", "ymax"))
    scale_x, scale_y = size[0] / annotated[0], size[1] / annotated[1]
    box = Box(
        left=max(left - 1, 0) * scale_x,
        top=max(top - 1, 0) * scale_y,
        right=min(right, annotated[0]) * scale_x,
        bottom=min(bottom, annotated[1]) * scale_y,
    )
    if box.left >= box.right or box.top >= box.bottom:
        raise CorpusError(
            f"{where}: box ({left:g}, {top:g}, {right:g}, {bottom:g}) is empty or outside the picture of "
            f"{annotated[0]:g}x{annotated[1]:g} pixels; correct or remove it"
        )
    return box


def _parse_xml(path: Path) -> ElementTree.Element:
    text = "\n".join(read_lines(path))
    if "<!DOCTYPE" in text:  # entity definitions can make a small file expand without bound
        raise CorpusError(f"{path}: declares a DOCTYPE, which annotation files do not need; remove it")
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise CorpusError(f"{path}:{error.position[0]}: not well-formed XML ({error}); fetch the file again") from None


def _number(element: ElementTree.Element, name: str, path: Path) -> float:
    text = element.findtext(name)
    try:
        return float(text or "")
    except ValueError:
        raise CorpusError(f"{path}: <{name}> is {text!r}; expected a number of pixels") from None


def _read_image(path: Path) -> tuple[bytes, str, tuple[int, int]]:
    """The file's bytes, ``jpg`` or ``png`` by content, and (width, height); decoded once to find damage now."""
    content = path.read_bytes()
    try:
        with Image.open(io.BytesIO(content), formats=tuple(_EXTENSIONS)) as image:
            extension, size = _EXTENSIONS[image.format or ""], image.size
            image.draft("RGB", (max(size[0] // 8, 1), max(size[1] // 8, 1)))  # reads all bytes, skips most arithmetic
            image.load()
    except UnidentifiedImageError:
        raise CorpusError(f"{path}: neither JPEG nor PNG; convert it") from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise CorpusError(f"{path}: the image is damaged ({error}); fetch it again") from None
    return content, extension, size
