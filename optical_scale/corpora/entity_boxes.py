"""Boxes of Flickr30k-Entities: one XML file per image, in the layout of Pascal VOC with entity ids as names."""

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from optical_scale.corpora.reader import read_lines
from optical_scale.errors import CorpusError
from optical_scale.records import Box

_ASPECT_TOLERANCE = 0.02
_MOST_OVERHANG = 0.05
"""Of a side of the picture: how far a box may reach beyond it and be cut there. Farther, it belongs to another one."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """What one file says.

    Attributes:
        regions: boxes by entity id, in pixels of the stored image.
        boxless: ids of entities that the file names without any box: scenes and what cannot be seen.
        scenes: objects marked ``<scene>1</scene>`` that have no box.
        unseen: other objects without a box, ``<nobndbox>1</nobndbox>``.
        clipped: boxes cut at the border of the picture.
    """

    regions: Mapping[str, tuple[Box, ...]]
    boxless: frozenset[str]
    scenes: int
    unseen: int
    clipped: int


def read_annotation(path: Path, size: tuple[int, int]) -> Annotation:
    """Read the boxes of one file, scaled to an image of ``size`` (width, height) pixels.

    Files count pixels from 1 and include the last one; boxes here count from 0 and exclude it. A box that reaches
    beyond the picture by at most a twentieth of its side is cut at the border and counted.

    Raises:
        CorpusError: the XML is malformed or declares a DOCTYPE; an object has neither name nor box nor a mark that it
            has none; a box is empty or farther outside; or the annotated picture has another aspect ratio.
    """
    root = _parse_xml(path)
    annotated = _number(root, "size/width", path), _number(root, "size/height", path)
    if min(annotated) < 1 or abs(size[0] * annotated[1] / (size[1] * annotated[0]) - 1) > _ASPECT_TOLERANCE:
        raise CorpusError(
            f"{path}: describes a picture of {annotated[0]:g}x{annotated[1]:g} pixels, the image has "
            f"{size[0]}x{size[1]}, another shape; expected the annotated picture, resized at most"
        )
    scale = size[0] / annotated[0], size[1] / annotated[1]
    regions: dict[str, list[Box]] = {}
    boxless: set[str] = set()
    scenes = unseen = clipped = 0
    for number, entry in enumerate(root.iterfind("object"), start=1):
        where = f"{path}: object {number}"
        names = [(name.text or "").strip() for name in entry.iterfind("name")]
        if not names or "" in names:
            raise CorpusError(f"{where} has no <name>; expected the entity ids it shows")
        if entry.find("bndbox") is None:
            scene, hidden = (entry.findtext(mark, "").strip() == "1" for mark in ("scene", "nobndbox"))
            if not scene and not hidden:
                raise CorpusError(f"{where} has no <bndbox>; expected one, or <nobndbox>1</nobndbox>")
            scenes, unseen = scenes + scene, unseen + (not scene)
            boxless.update(names)
            continue
        box, cut = _read_box(entry, annotated, where, path)
        clipped += cut
        scaled = Box(box.left * scale[0], box.top * scale[1], box.right * scale[0], box.bottom * scale[1])
        for name in names:
            regions.setdefault(name, []).append(scaled)
    found = {name: tuple(boxes) for name, boxes in regions.items()}
    return Annotation(found, frozenset(boxless - set(found)), scenes, unseen, clipped)


def _read_box(entry: ElementTree.Element, annotated: tuple[float, float], where: str, path: Path) -> tuple[Box, bool]:
    """The box in annotated pixels, and whether it was cut."""
    left, top, right, bottom = (_number(entry, f"bndbox/{side}", path) for side in ("xmin", "ymin", "xmax", "ymax"))
    width, height = annotated
    beyond_x, beyond_y = max(1 - left, right - width, 0), max(1 - top, bottom - height, 0)
    box = Box(max(left - 1, 0), max(top - 1, 0), min(right, width), min(bottom, height))
    far = beyond_x > max(_MOST_OVERHANG * width, 1) or beyond_y > max(_MOST_OVERHANG * height, 1)
    if far or box.left >= box.right or box.top >= box.bottom:
        raise CorpusError(
            f"{where}: box ({left:g}, {top:g}, {right:g}, {bottom:g}) is empty or outside the picture of "
            f"{width:g}x{height:g} pixels; correct or remove it"
        )
    return box, max(beyond_x, beyond_y) > 0


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
        number = float(text or "")
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise CorpusError(f"{path}: <{name}> is {text!r}; expected a number of pixels")
    return number
