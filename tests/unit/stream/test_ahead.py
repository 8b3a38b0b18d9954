import gc
import threading
import time

import pytest
import torch

from optical_scale.batch import PairBatch, TokenBatch
from optical_scale.errors import ShardError
from optical_scale.stream.ahead import ReadAhead
from tests.unit.stream.support import content, loader, run

COST = 10 * 100 * 2
"""Bytes of a micro-batch of :func:`batch`."""


def batch(key):
    ids_BT = torch.zeros(10, 10, dtype=torch.int64)
    side = TokenBatch(ids_BT, ids_BT > 0, ids_BT > 0)
    return PairBatch(side, side, ("en",) * 10, tuple(f"{key}-{row}" for row in range(10)))


def reader(steps, per_step=3, most_bytes=10**9, read=batch):
    """A read-ahead over ``per_step`` micro-batches a step, and the keys that were read so far."""
    seen = []

    def note(key):
        seen.append(key)
        return read(key)

    keys = ((step, number) for step in range(steps) for number in range(per_step))
    return ReadAhead(0, keys, note, threading.Lock(), most_bytes), seen


def settled(seen):
    """What was read once nothing more is."""
    before = -1
    while before != len(seen):
        before = len(seen)
        time.sleep(0.02)
    return before


def test_the_thread_stays_within_the_next_step():
    ahead, seen = reader(steps=9)
    assert settled(seen) == 6, "steps 0 and 1"
    for _ in range(3):
        next(ahead)
    assert settled(seen) == 6
    next(ahead)
    assert settled(seen) == 9, "step 2 once step 1 was begun"
    ahead.close()


@pytest.mark.parametrize("most", [1, 2, 4])
def test_what_waits_is_bounded_in_bytes(most):
    assert batch((0, 0)).nbytes == COST
    ahead, seen = reader(steps=2, per_step=50, most_bytes=most * COST)
    assert settled(seen) == most
    assert ahead.held == most * COST
    for taken in range(1, 6):
        next(ahead)
        assert settled(seen) == most + taken
        assert ahead.held <= most * COST
    ahead.close()
    assert ahead.held == 0


def test_order_and_end():
    ahead, _ = reader(steps=4)
    assert [found.keys[0] for found in ahead] == [f"{(step, number)}-0" for step in range(4) for number in range(3)]
    with pytest.raises(StopIteration):
        next(ahead)


def test_errors_of_data_are_values_and_others_are_raised_in_their_turn():
    def read(key):
        if key == (0, 1):
            return ShardError("damaged")
        if key == (1, 0):
            raise ZeroDivisionError("bug")
        return batch(key)

    ahead, _ = reader(steps=3, read=read)
    found = [next(ahead) for _ in range(3)]
    assert isinstance(found[1], ShardError)
    with pytest.raises(ZeroDivisionError, match="bug"):
        next(ahead)


def test_closing_ends_the_thread_and_so_does_forgetting_the_loader():
    others = set(threading.enumerate())

    def own():
        return [thread for thread in threading.enumerate() if thread.name == "read-ahead" and thread not in others]

    stream = loader()
    stream.take(0)
    assert len(own()) == 1
    stream.close()
    assert not own()
    stream.take(1)
    assert len(own()) == 1
    del stream
    gc.collect()
    assert not own()


def test_what_was_read_ahead_is_not_counted_and_reading_at_once_gives_the_same():
    at_once, state = run(1, 5, ahead=0)
    stream = loader()
    found = []
    for step in range(5):
        found.append([content(part) for part in stream.take(step)])
        time.sleep(0.01)  # the thread is in the next step
        assert stream.state()["step"] == step + 1
    assert found == at_once
    assert stream.state() == state
    # Everything that others may ask for while the thread reads.
    assert stream.drawn() == state["drawn"]
    assert content(stream.peek(7, 0)) == content(loader(ahead=0).peek(7, 0))
    stream.restore(run(1, 2)[1])
    assert [content(part) for part in stream.take(2)] == at_once[2]
