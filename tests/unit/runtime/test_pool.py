"""Work spread over processes: order, errors, and how it ends."""

import os
import signal
import time
from functools import partial
from itertools import count, islice

import pytest

from optical_scale.errors import CorpusError, ImageError, WorkerError
from optical_scale.runtime.pool import Aside, cores, map_in_order


class Slow:
    """Takes longer for even numbers, so that results come in another order than inputs."""

    def __init__(self, bad=None):
        if bad == "start":
            raise CorpusError("cannot start")
        self.bad = bad

    def __call__(self, number):
        if number == self.bad:
            raise ImageError(f"{number} is bad", "broken")
        if number % 2 == 0:
            time.sleep(0.005)
        return number, os.getpid()


def die(number):
    os.kill(os.getpid(), signal.SIGKILL)


def make_die():
    return die


@pytest.mark.parametrize("processes", [1, 2])
def test_results_come_in_order_and_inputs_are_taken_as_needed(processes):
    given = count()
    with_pids = list(islice(map_in_order(Slow, given, processes), 20))
    assert [number for number, _ in with_pids] == list(range(20))
    assert (os.getpid() in {pid for _, pid in with_pids}) == (processes == 1)
    assert next(given) <= 20 + 3 * processes


@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_comes_after_the_results_before_it(processes):
    results = map_in_order(partial(Slow, 5), range(9), processes)
    assert [number for number, _ in islice(results, 5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ImageError, match="5 is bad") as caught:
        next(results)
    assert caught.value.reason == "broken"


@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_at_the_start_is_told(processes):
    with pytest.raises(CorpusError, match="cannot start"):
        list(map_in_order(partial(Slow, "start"), range(3), processes))


def test_a_killed_process_is_an_error_not_a_hang():
    with pytest.raises(WorkerError, match="one of 2 worker processes ended without a result"):
        list(map_in_order(make_die, range(9), 2))


def test_a_call_aside_answers_raises_or_ends_with_the_block():
    begun = time.monotonic()
    with Aside(time.sleep, 600), Aside(pow, 3, exp=2) as power, Aside(Slow, bad="start") as bad, Aside(die, 0) as dead:
        assert power.result() == 9
        with pytest.raises(CorpusError, match="cannot start"):
            bad.result()
        with pytest.raises(WorkerError, match="ended without a result"):
            dead.result()
    assert time.monotonic() - begun < 300


def test_this_machine_has_cores():
    assert 1 <= cores() <= os.cpu_count()
