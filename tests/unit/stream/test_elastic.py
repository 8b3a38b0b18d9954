"""Continued equals resumed, for every kind of batch, at every cut, on other ranks and workers."""

import json
from pathlib import Path

import pytest
import torch.distributed as dist

from optical_scale.errors import ResumeError
from optical_scale.stream.buckets import Budget
from optical_scale.stream.curriculum import Curriculum
from optical_scale.stream.mixing import Mixture
from optical_scale.stream.strand import portions_of
from tests.support.processes import run_ranks
from tests.unit.stream.support import ListSource, bucketing, content, loader, run, strand, three_sources

STEPS = 11


def phased():
    portions = portions_of(three_sources())
    return Curriculum([(0, Mixture(portions)), (40, Mixture(portions, 5.0)), (112, Mixture(portions, 2.0))])


def two_kinds(**settings):
    """Strands of 9 and 5 steps an epoch."""
    other = [ListSource("x", "so", 80)]
    return [strand(**settings), strand(other, name="other", temperature=1.0)]


KINDS = {
    "plain": dict,
    "bucketed": lambda: {"bucketing": bucketing()},
    "tokens": lambda: {"bucketing": bucketing(budget=Budget(tokens=120), lanes=8, stretch=3)},
    "transport": lambda: {"bucketing": bucketing(budget=Budget(transport=400), lanes=8, stretch=3)},
    "curriculum": lambda: {"mixture": phased()},
    "curriculum, bucketed": lambda: {"mixture": phased(), "bucketing": bucketing()},
    "two strands": lambda: {"strands": two_kinds(bucketing=bucketing())},
    "shares": lambda: {"strands": two_kinds(), "shares": {"pairs": 2, "other": 1}},
}


@pytest.fixture(scope="module")
def whole():
    """The uninterrupted runs: every later sequence must be a part of one."""
    return {name: run(1, STEPS, **settings())[0] for name, settings in KINDS.items()}


@pytest.mark.parametrize("name", list(KINDS))
@pytest.mark.parametrize("after", [1, 2, 4, 8])
def test_every_cut_and_world_size(whole, name, after):
    before = [loader(size - 1, size, **KINDS[name]()) for size in (1, 2, 4, 8)]
    for cut in range(STEPS + 1):
        for rank in before:
            rank.step = cut
        states = [json.dumps(rank.state()) for rank in before]
        assert len(set(states)) == 1
        second, _ = run(after, STEPS - cut, state=json.loads(states[0]), **KINDS[name]())
        assert second == whole[name][cut:]


@pytest.mark.parametrize("name", list(KINDS))
@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_the_sequence_and_its_state_do_not_depend_on_the_world(whole, name, size):
    found, state = run(size, STEPS, **KINDS[name]())
    assert found == whole[name]
    position = loader(**KINDS[name]())
    position.step = STEPS
    assert state == position.state()


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")
@pytest.mark.parametrize("name", ["tokens", "two strands"])
@pytest.mark.parametrize(("before", "after"), [((1, 3), (2, 1)), ((2, 1), (1, 0)), ((2, 0), (1, 3))])
def test_workers_change_nothing(whole, name, before, after):
    first, state = run(before[0], 5, workers=before[1], **KINDS[name]())
    second, _ = run(after[0], 4, workers=after[1], state=state, **KINDS[name]())
    assert first + second == whole[name][:9]


def rank_takes(file, state, steps):
    """One real rank: take ``steps`` steps after ``state`` and write what was seen, for every step."""
    rank, size = dist.get_rank(), dist.get_world_size()
    stream = loader(rank, size, workers=1, **KINDS["tokens"]())
    if state:
        stream.restore(json.loads(state))
    seen = [[content(batch) for batch in stream.take(stream.step)] for _ in range(int(steps))]
    Path(f"{file}.{rank}").write_text(json.dumps([seen, stream.state()]))
    stream.close()


@pytest.mark.distributed
def test_real_processes_continue_each_other(whole, tmp_path):
    found, state = [], ""
    for part, (size, steps) in enumerate([(2, 3), (4, 5), (1, 3)]):
        file = tmp_path / str(part)
        run_ranks("tests.unit.stream.test_elastic", "rank_takes", file, state, str(steps), size=size)
        ranks = [json.loads(Path(f"{file}.{rank}").read_text()) for rank in range(size)]
        assert all(other[1] == ranks[0][1] for other in ranks)
        for step in range(steps):
            together = zip(*(seen[step] for seen, _ in ranks), strict=True)
            found.append([batch for batches in together for batch in batches])
        state = json.dumps(ranks[0][1])
    assert found == json.loads(json.dumps(whole["tokens"]))


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("plain", "bucketed", "batching was , is look_ahead 64, micro_batch_pairs 2, lengths characters"),
        ("bucketed", "tokens", "batching was look_ahead 64, micro_batch_pairs 2, .* is look_ahead 64, tokens 120"),
        ("plain", "curriculum", "probability of de .* is None"),
        ("two strands", "plain", "strands were pairs, other, are pairs"),
    ],
)
def test_another_sequence_is_refused(before, after, message):
    _, state = run(1, 2, **KINDS[before]())
    with pytest.raises(ResumeError, match=message):
        loader(**KINDS[after]()).restore(state)


def test_two_strands_take_turns_and_end_their_epochs_together(whole):
    turns = [{key[0] for batch in step for key in batch[0]} & {"x"} for step in run(1, 14, **KINDS["two strands"]())[0]]
    assert sum(map(len, turns)) == 5
    assert all(len({key[0] == "x" for batch in step for key in batch[0]}) == 1 for step in whole["two strands"])
    mine = loader(strands=two_kinds())
    assert mine.strands.counts(14) == (9, 5)
    assert [mine.strands.of(mine.strands.first(name))[0].name for name in ("pairs", "other")] == ["pairs", "other"]
    shared = loader(strands=two_kinds(), shares={"pairs": 2, "other": 1})
    assert shared.strands.counts(12) == (8, 4)


def test_damaged_states_of_strands_are_refused():
    stream = loader(strands=two_kinds())
    state = stream.state()
    with pytest.raises(ResumeError, match="damaged"):
        stream.restore({"version": 1, "step": "x", "strands": {}})
    with pytest.raises(ResumeError, match=r"pairs: steps so far were 0, are 2 .the shares changed"):
        stream.restore(state | {"step": 3})
