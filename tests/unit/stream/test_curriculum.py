from collections import Counter

import pytest

from optical_scale.errors import StreamError
from optical_scale.stream.curriculum import Curriculum
from optical_scale.stream.mixing import Mixture, Portion

PORTIONS = [Portion("a", "sw", 40), Portion("b", "de", 91), Portion("c", "sw", 13)]


def curriculum():
    return Curriculum(
        [(0, Mixture(PORTIONS)), (100, Mixture(PORTIONS, 5.0)), (250, Mixture(PORTIONS, weights={"sw": 9, "de": 1}))]
    )


def test_draws_and_counts_agree_everywhere():
    mix = curriculum()
    owners = mix.owners(0, 600).tolist()
    for draws in range(0, 600, 7):
        found = Counter(owners[:draws])
        assert mix.counts(draws) == (found[0], found[1], found[2])
        assert mix.language_counts(draws) == {"de": found[1], "sw": found[0] + found[2]}
    for start, stop in [(0, 0), (90, 110), (99, 100), (100, 101), (60, 400), (250, 600)]:
        assert mix.owners(start, stop).tolist() == owners[start:stop]


def test_shares_change_at_the_phases():
    mix = curriculum()
    shares = [mix.owners(first, last).tolist().count(1) / (last - first) for first, last in [(0, 100), (250, 1250)]]
    assert shares == pytest.approx([91 / 144, 0.1], abs=0.01)
    last = {row.language: row for row in mix.exposure(10**6)}
    assert last["de"].probability == pytest.approx(0.1, abs=0.001)
    assert last["de"].draws + last["sw"].draws == 10**6
    assert mix.describe()["de from draw 250"] == "1/10"


@pytest.mark.parametrize("starts", [[], [1], [0, 0], [0, 5, 4]])
def test_phases_that_do_not_ascend_are_refused(starts):
    with pytest.raises(StreamError, match="must ascend from 0"):
        Curriculum([(start, Mixture(PORTIONS)) for start in starts])
