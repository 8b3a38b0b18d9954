import itertools
import json
import logging
import os
import random
import signal
import sys
import threading

import numpy as np
import pytest
import torch

from optical_scale.errors import CheckpointError
from optical_scale.runtime.files import sha256
from optical_scale.runtime.world import World
from optical_scale.training.checkpoint import CheckpointStore, complete_checkpoints, ranks_of


@pytest.fixture
def store(tmp_path):
    return CheckpointStore(tmp_path / "checkpoints", World(), keep=2)


def save(store, step, content="weights"):
    def write_shards(folder):
        (folder / "student").mkdir()
        (folder / "student" / "shard.pt").write_text(content)

    return store.save(step, write_shards, lambda folder: (folder / "config.yaml").write_text("run: a"))


def names(store):
    return sorted(path.name for path in store.folder.iterdir())


def test_a_checkpoint_is_sealed_with_the_hashes_of_all_its_files(store):
    folder = save(store, 7)
    assert folder.name == "step_000007"
    recorded = json.loads((folder / "files.json").read_text())
    present = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert recorded.keys() == present - {"files.json", "COMPLETE"}
    assert recorded.keys() == {"student/shard.pt", "config.yaml", "random_00000.pt"}
    for name, facts in recorded.items():
        assert facts == {"bytes": (folder / name).stat().st_size, "sha256": sha256(folder / name)}


def test_the_newest_are_kept_and_the_start_besides(store):
    for step in (0, 2, 4, 6):
        save(store, step)
    assert names(store) == ["step_000000", "step_000004", "step_000006"]
    assert store.latest().name == "step_000006"


def test_no_checkpoint_is_none(store):
    assert store.latest() is None


def test_steps_are_ordered_by_number(store):
    for step in (999_998, 999_999, 1_000_000):
        save(store, step)
    assert store.latest().name == "step_1000000"
    assert names(store) == ["step_1000000", "step_999999"]


def test_an_unfinished_one_is_named_and_ignored(store, caplog):
    save(store, 2)
    (store.folder / "step_000004").mkdir()
    logger = logging.getLogger("optical_scale")
    logger.propagate, before = True, logger.propagate
    try:
        assert store.latest().name == "step_000002"
    finally:
        logger.propagate = before
    assert "step_000004: it has no COMPLETE file" in caplog.text
    save(store, 4)
    assert [path.name for path in complete_checkpoints(store.folder)] == ["step_000002", "step_000004"]


def test_a_damaged_one_is_named_with_its_file(store):
    shard = save(store, 2) / "student" / "shard.pt"
    shard.write_text("weight")
    with pytest.raises(
        CheckpointError, match=r"step_000002 is damaged: student/shard\.pt has 6 bytes, was saved with 7"
    ):
        store.latest()
    shard.unlink()
    with pytest.raises(CheckpointError, match=r"student/shard\.pt is missing; copy it again"):
        store.latest()


@pytest.mark.parametrize("part", ["shards", "rest"])
def test_a_failed_save_leaves_the_last_checkpoint_and_the_next_save_tidies(store, part):
    save(store, 2)

    def fail(folder):
        (folder / "half").write_text("")
        raise OSError("disk full")

    writers = (fail, lambda folder: None) if part == "shards" else (lambda folder: None, fail)
    with pytest.raises(OSError, match="disk full"):
        store.save(4, *writers)
    assert store.latest().name == "step_000002"
    save(store, 6)
    assert names(store) == ["step_000002", "step_000006"]


def _killed_at(store, number):
    """Save step 4 in a process that is killed before its file operation of that number; False if it had fewer."""
    child = os.fork()
    if not child:
        count = itertools.count()

        def strike(event, arguments):
            if event in ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir") and next(count) == number:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(strike)
        save(store, 4)
        store.wait()
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_whenever_a_process_is_killed_a_whole_checkpoint_stays_and_nothing_else_after_the_next_save(tmp_path):
    for number in itertools.count():
        store = CheckpointStore(tmp_path / str(number), World(), keep=1, asynchronous=True)
        save(store, 2)
        store.wait()
        killed = _killed_at(store, number)
        found = store.latest()
        assert found.name in ("step_000002", "step_000004")
        for name, facts in json.loads((found / "files.json").read_text()).items():
            assert facts == {"bytes": (found / name).stat().st_size, "sha256": sha256(found / name)}
        save(store, 6)
        store.wait()
        assert names(store) == ["step_000006"]
        if not killed:
            break
    assert number > 20, number


@pytest.fixture
def disk(monkeypatch):
    """A disk that is slow until the returned event is set."""
    ready, flush = threading.Event(), os.fsync

    def slow(file):
        assert ready.wait(20)
        flush(file)

    monkeypatch.setattr(os, "fsync", slow)
    yield ready
    ready.set()


def test_training_goes_on_while_a_checkpoint_is_sealed(tmp_path, disk):
    store = CheckpointStore(tmp_path / "checkpoints", World(), keep=1, asynchronous=True)
    folder = save(store, 2)
    assert names(store) == [".step_000002.tmp"]
    assert complete_checkpoints(store.folder) == []
    disk.set()
    assert store.latest() == folder
    save(store, 4)
    save(store, 6)
    store.wait()
    assert names(store) == ["step_000006"]
    assert (store.folder / "step_000006" / "COMPLETE").exists()


def test_a_checkpoint_that_could_not_be_sealed_is_told_and_the_last_stays(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path / "checkpoints", World(), keep=2, asynchronous=True)
    save(store, 2)
    store.wait()

    def full(_):
        raise OSError("disk full")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", full)
        save(store, 4)
        with pytest.raises(OSError, match="disk full"):
            store.wait()
    assert store.latest().name == "step_000002"
    save(store, 6)
    store.wait()
    assert names(store) == ["step_000002", "step_000006"]


def test_saving_a_step_again_replaces_it(store):
    save(store, 2, "old")
    folder = save(store, 2, "new")
    assert (folder / "student" / "shard.pt").read_text() == "new"
    assert names(store) == ["step_000002"]


def test_all_generators_continue_where_they_stood(store):
    def draw():
        return random.random(), float(np.random.rand()), torch.rand(2).tolist()

    folder = save(store, 1)
    expected = draw()
    draw()
    store.restore_random_state(folder)
    assert draw() == expected


def test_a_checkpoint_knows_its_ranks(store):
    folder = save(store, 1)
    assert ranks_of(folder) == 1


def test_the_best_is_kept_and_linked(store):
    def save_with_best(step, best):
        store.save(step, lambda folder: (folder / "student").mkdir(), lambda folder: None, best)

    save_with_best(2, 2)
    for step in (4, 6, 8):
        save_with_best(step, 2)
    assert names(store) == ["best", "step_000002", "step_000006", "step_000008"]
    assert (store.folder / "best").resolve().name == "step_000002"
    assert store.latest().name == "step_000008"
    save_with_best(10, 10)
    assert names(store) == ["best", "step_000008", "step_000010"]
    assert (store.folder / "best").resolve().name == "step_000010"


def test_a_best_that_is_wanted_no_longer_leaves_no_broken_link(store):
    store.save(2, lambda folder: None, lambda folder: None, 2)
    for step in (4, 6):
        store.save(step, lambda folder: None, lambda folder: None)
    assert names(store) == ["step_000004", "step_000006"]
