import numpy as np
import pytest

from optical_scale.evaluation.patch_maps import (
    chance_box,
    chance_point,
    mass_box,
    overlap,
    point_hit,
    union_box,
)


def planted(*rows):
    return np.array(rows, dtype=np.float64)


def boxes(*found):
    return np.array(found, dtype=np.float64)


def test_the_heaviest_patch_points():
    mass = planted([0, 0, 0], [0, 0, 1], [0, 2, 0])
    assert point_hit(mass, boxes([1, 2, 2, 3])) == 1
    assert point_hit(mass, boxes([2, 1, 3, 2])) == 0
    assert point_hit(mass, boxes([0, 0, 1, 1], [1, 2, 2, 3])) == 1, "one of several boxes is enough"


def test_a_box_that_does_not_hold_the_centre_of_the_patch_is_missed():
    mass = planted([1, 0], [0, 0])
    assert point_hit(mass, boxes([0, 0, 0.6, 0.6])) == 1
    assert point_hit(mass, boxes([0, 0, 0.5, 1])) == 0, "the right edge does not belong to a box"


def test_a_map_without_preference_points_like_chance():
    box = boxes([0, 0, 3, 1])
    assert point_hit(np.ones((4, 4)), box) == chance_point(box, 4) == 3 / 16


def test_the_box_of_a_map_is_around_its_heaviest_connected_region():
    mass = planted([0, 3, 0, 9], [0, 6, 6, 0], [0, 0, 6, 0], [5, 0, 0, 0])
    # Above half of 9: the corner alone, the three sixes, and the five; the sixes weigh most together.
    assert mass_box(mass, 0.5).tolist() == [1, 1, 3, 3]
    assert mass_box(mass, 1.0).tolist() == [3, 0, 4, 1]
    assert mass_box(mass, 0.3).tolist() == [1, 0, 3, 3], "the corner touches the region at a corner only"


def test_regions_that_touch_along_an_edge_are_one():
    mass = planted([0, 3, 3, 9], [0, 6, 6, 0], [0, 0, 6, 0], [5, 0, 0, 0])
    assert mass_box(mass, 0.3).tolist() == [1, 0, 4, 3]


def test_a_map_without_preference_draws_the_whole_picture():
    assert mass_box(np.full((3, 3), 1 / 9), 0.5).tolist() == [0, 0, 3, 3]


def test_of_equal_regions_the_first_is_taken():
    assert mass_box(planted([0, 1, 0], [0, 0, 0], [1, 0, 0]), 0.5).tolist() == [1, 0, 2, 1]


@pytest.mark.parametrize(
    ("box", "gold", "expected"),
    [
        ([0, 0, 2, 2], [0, 0, 2, 2], 1.0),
        ([0, 0, 2, 2], [1, 0, 3, 2], 1 / 3),
        ([0, 0, 2, 1], [0, 0, 1, 1], 0.5),
        ([0, 0, 1, 1], [1, 0, 2, 1], 0.0),
        ([0, 0, 1, 1], [2, 2, 3, 3], 0.0),
    ],
)
def test_intersection_over_union(box, gold, expected):
    assert overlap(np.array(box, float), np.array(gold, float)) == pytest.approx(expected)


def test_several_boxes_are_matched_as_one_around_them():
    assert union_box(boxes([0, 1, 1, 2], [3, 0, 4, 1])).tolist() == [0, 0, 4, 2]


def test_chance_of_a_box_counts_all_boxes_of_whole_patches():
    rng = np.random.default_rng(0)
    for _ in range(20):
        side = int(rng.integers(1, 6))
        low = rng.uniform(0, side - 0.2, 2)
        high = rng.uniform(low + 0.1, side)
        gold = np.concatenate([low, high])
        every = [
            np.array([left, top, right, bottom], dtype=float)
            for left in range(side)
            for top in range(side)
            for right in range(left + 1, side + 1)
            for bottom in range(top + 1, side + 1)
        ]
        assert chance_box(gold, side) == pytest.approx(np.mean([overlap(box, gold) >= 0.5 for box in every]))
