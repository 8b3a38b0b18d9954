import gc
import itertools
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
import torch

from optical_scale.errors import ResumeError, ShardError, StreamError
from tests.unit.stream.support import ListSource, content, loader, run, three_sources

STEPS = 12


@pytest.fixture(scope="module")
def whole():
    """The uninterrupted run: every later sequence must be a part of it."""
    return run(1, STEPS)[0]


@pytest.mark.parametrize("before", [1, 2, 4, 8])
@pytest.mark.parametrize("after", [1, 2, 4, 8])
def test_resumed_equals_continued_at_every_cut_and_world_size(whole, before, after):
    for cut in range(STEPS + 1):
        first, state = run(before, cut)
        second, _ = run(after, STEPS - cut, state=json.loads(json.dumps(state)))
        assert first + second == whole


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")
@pytest.mark.parametrize(
    ("before", "after", "cut"), [((1, 1), (1, 0), 3), ((1, 3), (2, 1), 5), ((2, 0), (1, 3), 4), ((2, 1), (1, 1), 1)]
)
def test_resumed_equals_continued_when_ranks_and_workers_change(whole, before, after, cut):
    first, state = run(before[0], cut, workers=before[1])
    second, _ = run(after[0], 4, workers=after[1], state=state)
    assert first + second == whole[: cut + 4]


def test_random_cuts_chained(whole):
    state, found = None, []
    for size, steps in [(2, 1), (8, 3), (1, 0), (4, 5), (1, 3)]:
        part, state = run(size, steps, state=state)
        found += part
    assert found == whole
    assert state["step"] == STEPS


def test_another_micro_batch_size_continues_with_the_same_sets(whole):
    _, state = run(1, 4)
    resumed, _ = run(2, 3, state=state, micro_batch_pairs=8)
    keys = [sorted(key for batch in step for key in batch[0]) for step in resumed]
    assert keys == [sorted(key for batch in step for key in batch[0]) for step in whole[4:7]]


def test_every_pair_exactly_once_an_epoch():
    steps, _ = run(2, 9, temperature=1.0)  # 144 pairs in the three sources, 9 steps of 16
    keys = Counter(key for step in steps for batch in step for key in batch[0])
    assert keys == {f"{s.name}-{i}": 1 for s in three_sources() for i in range(s.pairs)}


def test_state_counts_what_was_handed_out_not_what_was_read_ahead():
    stream = loader(workers=1)
    languages = Counter()
    for step in range(3):
        languages.update(language for batch in stream.take(step) for language in batch.languages)
    time.sleep(0.2)  # the worker reads on
    state = stream.state()
    stream.close()
    assert (state["step"], state["draws"]) == (3, 48)
    assert state["drawn"] == languages


def test_restore_reads_nothing_and_the_next_step_reads_only_its_rows():
    _, state = run(1, 1)
    far = loader(sources=three_sources(), rank=1, size=4, ahead=0)
    state |= {
        "step": 10**9,
        "draws": 16 * 10**9,
        "drawn": far.strands.strands[0].plan.mixture.language_counts(16 * 10**9),
    }
    far.restore(state)
    assert [source.read for source in far.strands.strands[0].sources] == [[], [], []]
    far.take(10**9)
    assert sum(len(source.read) for source in far.strands.strands[0].sources) == 4


def test_iterating_gives_the_steps_in_order(whole):
    stream = loader()
    assert [[content(b) for b in step] for step in itertools.islice(stream, 2)] == whole[:2]
    assert stream.step == 2
    assert [content(batch) for batch in stream.take(2)] == whole[2]


def test_a_step_out_of_turn_is_refused():
    stream = loader()
    with pytest.raises(StreamError, match="step 1 was asked for, but the stream stands before step 0"):
        stream.take(1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 3.0}, "probability of de was .* is .* \\(temperature or weights\\)"),
        ({"seed": 6}, "seed was 5, is 6"),
        ({"pairs_per_step": 32}, "pairs_per_step was 16, is 32"),
        ({"sources": three_sources()[:2]}, "source 'c' is gone"),
    ],
)
def test_a_changed_mixture_is_refused_and_nothing_moves(settings, message):
    _, state = run(1, 2)
    stream = loader(**settings)
    with pytest.raises(ResumeError, match=message):
        stream.restore(state)
    assert stream.step == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_sample_keeps_its_message_and_the_position(workers):
    broken = [ListSource("a", "sw", 64, broken=7)]
    stream = loader(sources=broken, workers=workers)
    message = "a-000000.tar, sample 7: the bytes differ; run `optical-scale verify x`"
    with pytest.raises(ShardError) as caught:
        list(itertools.islice(stream, 4))
    assert str(caught.value) == message
    assert not multiprocessing.active_children()
    stopped = stream.step
    with pytest.raises(ShardError, match="sample 7"):  # a second attempt fails at the same place
        stream.take(stopped)
    assert stream.state()["step"] == stopped
    stream.close()
    healthy = loader(sources=[ListSource("a", "sw", 64)])
    healthy.restore(stream.state())
    assert "a-7" in {key for batch in healthy.take(stopped) for key in batch.keys}


def test_a_bug_in_a_worker_keeps_its_type():
    class Buggy(ListSource):
        def __getitem__(self, index):
            raise ZeroDivisionError("bug")

    stream = loader(sources=[Buggy("a", "sw", 9)], workers=1)
    with pytest.raises(ZeroDivisionError, match="bug"):
        stream.take(0)
    stream.close()


def test_workers_ignore_signals_meant_for_the_trainer_and_leave_when_closed(whole):
    gc.collect()  # tracebacks of earlier tests may hold workers of theirs
    stream = loader(workers=2)
    found = [[content(batch) for batch in stream.take(0)]]
    children = multiprocessing.active_children()
    assert len(children) == 2
    for number in (signal.SIGINT, signal.SIGUSR1):
        for child in children:
            os.kill(child.pid, number)
    # A scheduler's SIGTERM comes from outside the parent.
    subprocess.run(["kill", "-TERM", *[str(child.pid) for child in children]], check=True)
    time.sleep(0.2)
    found += [[content(batch) for batch in stream.take(step)] for step in range(1, 5)]
    assert found == whole[:5]
    assert all(child.is_alive() for child in children)
    stream.close()
    for child in children:
        child.join(5)
    assert not multiprocessing.active_children()


def test_a_program_that_forgets_to_close_still_ends():
    program = "from tests.unit.stream.support import loader; stream = loader(workers=1); stream.take(0); print('done')"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout == "done\n"
    assert ended.stderr == ""


def test_workers_leave_no_shared_memory_and_the_random_state_alone():
    torch.manual_seed(1)
    expected = torch.rand(4)
    torch.manual_seed(1)
    before = set(os.listdir("/dev/shm"))
    stream = loader(workers=1)
    batches = stream.take(0)
    stream.close()
    assert torch.equal(torch.rand(4), expected)
    assert not {name for name in set(os.listdir("/dev/shm")) - before if name.startswith("torch_")}
    assert len(batches) == 8


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sources": []}, "list of sources is empty"),
        ({"sources": [ListSource("a", "sw", 0)]}, "'a' \\(sw\\) has no samples"),
        ({"size": 3}, "16 = 3 ranks x 2 micro_batch_pairs x 2.667"),
        ({"workers": -1}, "workers is -1"),
    ],
)
def test_impossible_loaders_are_refused(settings, message):
    with pytest.raises(StreamError, match=message):
        loader(**settings)
