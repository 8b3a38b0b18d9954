"""A run goes on with another number of processes: 2, then 1, then 2 again."""

import pytest

from tests.support.processes import TRAIN, finish, start
from tests.support.runs import Workshop, steps_of

pytestmark = pytest.mark.distributed

# The converter stores fp32 moments whole; what differs is the order of sums, as between any two numbers of ranks.
TOLERANCE = 1e-4
NAMES = ("loss", "gradient_norm", "learning_rate")


def write(workshop, run, stage, steps):
    return workshop.config(
        run,
        stream={"micro_batch_pairs": 2},
        student={"engine": {"zero_stage": stage, "persistent_parameters": 100}},
        optimization={"steps": steps, "warmup": 0.0, "decay": "constant"},
    )


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    return Workshop(tmp_path_factory.mktemp("elastic"))


@pytest.fixture(scope="module")
def alone(workshop):
    finish(start([*TRAIN, write(workshop, "alone", 0, 9)]))
    return steps_of(workshop.folder / "alone", *NAMES)


@pytest.mark.parametrize(("stage", "parts"), [(3, ((3, 2), (6, 1), (9, 2))), (2, ((4, 1), (9, 2)))])
def test_other_ranks_continue_the_curve(workshop, alone, stage, parts):
    run = f"stage{stage}"
    said = [finish(start([*TRAIN, write(workshop, run, stage, steps)], ranks))[0] for steps, ranks in parts]
    for earlier, later, output in zip(parts, parts[1:], said[1:], strict=False):
        assert f"was written by {earlier[1]} processes, this run has {later[1]}; rewriting its shards" in output
        assert f"continuing after step {earlier[0]}" in output
    found = steps_of(workshop.folder / run, *NAMES)
    assert list(found) == list(alone) == list(range(1, 10))
    for step, values in alone.items():
        assert found[step] == pytest.approx(values, rel=TOLERANCE)
    assert not list((workshop.folder / run).glob("reshaped*"))


def test_stage_0_is_not_rewritten(workshop):
    finish(start([*TRAIN, write(workshop, "plain", 0, 1)]))
    said = finish(start([*TRAIN, write(workshop, "plain", 0, 2)], 2), status=2)
    assert "written by 1 processes, this run has 2; at ZeRO stage 0 it cannot be rewritten" in said[0]
