"""Geometry of a map of mass over the patches of an image: where it points, which box it draws, what chance would do.

Everything is measured in patches from the top left corner of the grid (:mod:`optical_scale.regions`); the ratio of two
areas is the same in patches as in pixels of the picture.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from optical_scale.regions import Boxes

Map = NDArray[np.float64]
"""(S, S) masses ≥ 0, rows from the top."""
MATCH = 0.5
"""Intersection over union from which on a box counts as found."""
_EQUAL = 1e-5
"""Relative difference of masses that says nothing: plans are computed in float32."""


def union_box(boxes_K4: Boxes) -> Boxes:
    """The smallest box around all boxes, (4,)."""
    return np.concatenate([boxes_K4[:, :2].min(0), boxes_K4[:, 2:].max(0)])


def point_hit(mass_SS: Map, boxes_K4: Boxes) -> float:
    """Pointing game: does the centre of the heaviest patch lie in one of the boxes (Zhang et al., ECCV 2016)?

    Returns:
        1 or 0; of several heaviest patches, which a map without preference has, the share that lies in a box.
    """
    rows, columns = np.nonzero(mass_SS >= mass_SS.max() * (1 - _EQUAL))
    return float(inside(columns + 0.5, rows + 0.5, boxes_K4).mean())


def inside(x: Any, y: Any, boxes_K4: Boxes) -> NDArray[np.bool_]:
    """Which points lie in at least one box; the right and lower edges do not belong to it."""
    x_P1, y_P1 = np.atleast_1d(x)[:, None], np.atleast_1d(y)[:, None]
    left, top, right, bottom = boxes_K4.T
    found: NDArray[np.bool_] = ((left <= x_P1) & (x_P1 < right) & (top <= y_P1) & (y_P1 < bottom)).any(1)
    return found


def mass_box(mass_SS: Map, share: float) -> Boxes:
    """One box for a map: the tightest around a connected region of heavy patches (after Zhou et al., CVPR 2016).

    Patches with at least ``share`` of the greatest mass fall into regions that touch along edges; the region with the
    most mass is taken, of equal ones the first from the top left.
    """
    regions, count = ndimage.label(mass_SS >= mass_SS.max() * share * (1 - _EQUAL))
    masses = ndimage.sum_labels(mass_SS, regions, np.arange(1, count + 1))
    heaviest = int(np.argmax(masses >= masses.max() * (1 - _EQUAL)))
    rows, columns = ndimage.find_objects(regions)[heaviest]
    return np.array([columns.start, rows.start, columns.stop, rows.stop], dtype=np.float64)


def overlap(box: Boxes, gold: Boxes) -> float:
    """Intersection over union of two boxes (4,) that are not empty."""
    sides = np.minimum(box[2:], gold[2:]) - np.maximum(box[:2], gold[:2])
    common = float(sides.clip(min=0).prod())
    return common / (_area(box) + _area(gold) - common)


def chance_point(boxes_K4: Boxes, side: int) -> float:
    """Share of all patches whose centre lies in a box: a patch drawn at random."""
    rows, columns = np.divmod(np.arange(side * side), side)
    return float(inside(columns + 0.5, rows + 0.5, boxes_K4).mean())


def chance_box(gold: Boxes, side: int) -> float:
    """Share of all boxes of whole patches that match ``gold``: a box drawn at random."""
    starts, stops = np.triu_indices(side)
    stops = stops + 1
    common_x, common_y = (
        (np.minimum(stops, gold[axis + 2]) - np.maximum(starts, gold[axis])).clip(min=0) for axis in (0, 1)
    )
    lengths = stops - starts
    common = np.outer(common_y, common_x)
    return float((common >= MATCH * (np.outer(lengths, lengths) + _area(gold) - common)).mean())


def _area(box: Boxes) -> float:
    return float((box[2:] - box[:2]).prod())
