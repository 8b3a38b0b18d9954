"""Continued equals resumed at every cut, for all pairs of world sizes and numbers of workers."""

import itertools
import json

import pytest

from tests.unit.stream.support import run

STEPS = 5
SIZES, WORKERS = (1, 2, 4, 8), (0, 1, 3)


@pytest.fixture(scope="module")
def whole():
    return run(1, STEPS, ahead=0)[0]


@pytest.mark.parametrize("before", SIZES)
@pytest.mark.parametrize("after", SIZES)
@pytest.mark.parametrize("ahead", [0, 1 << 20])
def test_every_cut_and_every_change_of_ranks(whole, before, after, ahead):
    for cut in range(STEPS + 1):
        first, state = run(before, cut, ahead=ahead)
        second, end = run(after, STEPS - cut, state=json.loads(json.dumps(state)), ahead=(1 << 20) - ahead)
        assert first + second == whole
        assert end["step"] == STEPS


# Real worker processes are slow to start, so each case continues the one before it, a step each.
CHAIN = [*itertools.product((1, 2), WORKERS), (4, 1), (1, 3), (8, 0), (2, 3), (1, 0)]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_ranks_and_workers_change_together_after_every_step(whole):
    state, found = None, []
    for number, (size, workers) in enumerate(CHAIN):
        if number % STEPS == 0:
            state, found = None, []
        part, state = run(size, 1, workers=workers, state=state)
        found += part
        assert found == whole[: len(found)], (size, workers)
