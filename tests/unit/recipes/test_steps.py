"""How long a run is, with one strand and with two."""

import pytest

from optical_scale.recipes.steps import total_steps
from optical_scale.stream.strand import Strands
from tests.unit.config.test_run import IMAGES, train, two_towers
from tests.unit.stream.support import ListSource, bucketing, strand


def config(share=None, **optimization):
    return train(**two_towers(stream={"images": IMAGES | {"steps": share}}, optimization=optimization))


def strands(shares=None):
    """144 pairs in 9 steps of 16, and 83 in 6."""
    return Strands([strand(), strand([ListSource("x", "so", 83)], name="images", temperature=1.0)], shares)


@pytest.mark.parametrize(
    ("epochs", "share", "expected"),
    [
        (1, None, (9, 6)),
        (3, None, (27, 16)),  # 15.6 rounded up, though the last step of every epoch reaches into the next
        (2, 0.5, (18, 9)),
        (2, 3.0, (18, 54)),
    ],
)
def test_every_strand_gets_its_epochs_and_no_step_more_than_needed(epochs, share, expected):
    shares = None if share is None else {"pairs": 1.0, "images": share}
    found = strands(shares)
    steps = total_steps(config(epochs=epochs, share=share), found)
    counts = found.counts(steps)
    counted = slice(None) if share is None else slice(1)
    assert all(count >= least for count, least in zip(counts[counted], expected[counted], strict=True))
    earlier = found.counts(steps - 1)
    assert any(count < least for count, least in zip(earlier[counted], expected[counted], strict=True))
    assert abs(counts[1] - expected[1]) <= 2


def test_one_strand_and_given_steps():
    assert total_steps(config(epochs=2), Strands([strand()])) == 18
    assert total_steps(config(epochs=1.5), Strands([strand(bucketing=bucketing())])) == 14
    assert total_steps(config(steps=7), strands()) == 7
