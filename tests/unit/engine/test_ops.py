"""Locks that killed builds leave behind, for which torch's extension builder would wait for ever."""

import os
import time

from optical_scale.engine.ops import _clear_abandoned


def test_an_old_lock_is_removed_at_once(tmp_path):
    lock = tmp_path / "lock"
    lock.touch()
    os.utime(lock, (time.time() - 500,) * 2)
    started = time.monotonic()
    _clear_abandoned(lock)
    assert not lock.exists()
    assert time.monotonic() - started < 1


def test_a_build_that_goes_on_is_waited_for(tmp_path):
    lock, other = tmp_path / "lock", tmp_path / "op.o"
    lock.touch()
    os.utime(lock, (time.time() - 500,) * 2)
    other.touch()
    started = time.monotonic()
    _clear_abandoned(lock, patience=0.5)
    assert not lock.exists()
    assert time.monotonic() - started > 0.4


def test_without_a_lock_nothing_happens(tmp_path):
    _clear_abandoned(tmp_path / "lock")
    assert list(tmp_path.iterdir()) == []
