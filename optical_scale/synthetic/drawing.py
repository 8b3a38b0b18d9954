"""Pictures of scenes: two groups of plain objects, each group in its half of the image."""

import io
from collections.abc import Callable
from random import Random

from PIL import Image, ImageDraw

from optical_scale.synthetic.grammar import Group

Rectangle = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels, all inclusive."""

RGB = {"red": (214, 40, 40), "blue": (38, 84, 214), "green": (38, 150, 70), "yellow": (236, 190, 20)}
SMALLEST = 32  # pixels; below, a small star is a blot

Draw = Callable[[ImageDraw.ImageDraw, Rectangle, tuple[int, int, int]], None]


def _ball(canvas: ImageDraw.ImageDraw, box: Rectangle, colour: tuple[int, int, int]) -> None:
    canvas.ellipse(box, fill=colour)


def _box(canvas: ImageDraw.ImageDraw, box: Rectangle, colour: tuple[int, int, int]) -> None:
    left, top, right, bottom = box
    canvas.rectangle(box, fill=colour)
    lid = top + (bottom - top) // 4
    canvas.line((left, lid, right, lid), fill=(30, 30, 30))


def _star(canvas: ImageDraw.ImageDraw, box: Rectangle, colour: tuple[int, int, int]) -> None:
    # Five points on a grid of 100, written out: trigonometry may round differently between machines.
    points = ((50, 0), (62, 36), (100, 36), (69, 59), (81, 100), (50, 77), (19, 100), (31, 59), (0, 36), (38, 36))
    canvas.polygon(_scaled(points, box), fill=colour)


def _house(canvas: ImageDraw.ImageDraw, box: Rectangle, colour: tuple[int, int, int]) -> None:
    roof_and_walls = ((50, 0), (100, 45), (85, 45), (85, 100), (15, 100), (15, 45), (0, 45))
    canvas.polygon(_scaled(roof_and_walls, box), fill=colour)
    (left, top), (right, bottom) = _scaled(((42, 70), (58, 98)), box)
    canvas.rectangle((left, top, right, bottom), fill=(30, 30, 30))


def _book(canvas: ImageDraw.ImageDraw, box: Rectangle, colour: tuple[int, int, int]) -> None:
    # An open book: two leaning pages and the fold between them.
    pages = ((0, 10), (50, 25), (100, 10), (100, 80), (50, 95), (0, 80))
    canvas.polygon(_scaled(pages, box), fill=colour)
    canvas.line(_scaled(((50, 25), (50, 95)), box), fill=(30, 30, 30))


def _fish(canvas: ImageDraw.ImageDraw, box: Rectangle, colour: tuple[int, int, int]) -> None:
    (left, top), (right, bottom) = _scaled(((0, 22), (75, 78)), box)
    canvas.ellipse((left, top, right, bottom), fill=colour)
    canvas.polygon(_scaled(((65, 50), (100, 20), (100, 80)), box), fill=colour)
    canvas.point(_scaled(((18, 42),), box), fill=(30, 30, 30))


_DRAWINGS: dict[str, Draw] = {
    "ball": _ball,
    "box": _box,
    "star": _star,
    "house": _house,
    "book": _book,
    "fish": _fish,
}


def _scaled(points: tuple[tuple[int, int], ...], box: Rectangle) -> list[tuple[int, int]]:
    left, top, right, bottom = box
    return [(left + x * (right - left) // 100, top + y * (bottom - top) // 100) for x, y in points]


def draw_scene(
    first: Group, second: Group, vertical: bool, size: int, source: Random
) -> tuple[bytes, list[Rectangle], list[Rectangle]]:
    """Draw ``first`` above (``vertical``) or to the left of ``second``.

    Args:
        first: the upper or left group.
        second: the lower or right group.
        vertical: one above the other, else side by side.
        size: width and height in pixels, at least :data:`SMALLEST`.
        source: decides the positions within a third of a half, and the shade of the ground.

    Returns:
        The PNG file, and for each group the box of every object.
    """
    shade = source.randrange(232, 256)
    image = Image.new("RGB", (size, size), (shade, shade, shade))
    canvas = ImageDraw.Draw(image)
    boxes = [_place(group, half, vertical, size, source) for half, group in enumerate((first, second))]
    for group, rectangles in zip((first, second), boxes, strict=True):
        for rectangle in rectangles:
            _DRAWINGS[group.noun](canvas, rectangle, RGB[group.colour])
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=6)
    return stream.getvalue(), boxes[0], boxes[1]


def _place(group: Group, half: int, vertical: bool, size: int, source: Random) -> list[Rectangle]:
    """One object per cell: a half of the image is cut across into three, and ``count`` of the cells are used."""
    extent = size // 3 - 2 if group.size == "large" else size // 6
    rectangles = []
    for cell in sorted(source.sample(range(3), group.count)):
        along = cell * (size // 3) + source.randrange(size // 3 - extent)
        across = half * (size // 2) + source.randrange(size // 2 - extent)
        left, top = (along, across) if vertical else (across, along)
        rectangles.append((left, top, left + extent - 1, top + extent - 1))
    return rectangles
