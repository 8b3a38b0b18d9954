"""A run goes on with another number of processes and another ZeRO stage: 2, 1, 2 and 3 processes."""

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
        stream={"pairs_per_step": 12, "micro_batch_pairs": 2},
        student={"engine": {"zero_stage": stage, "persistent_parameters": 100}, "freeze": ["embeddings.LayerNorm"]},
        optimization={"steps": steps, "warmup": 0.0, "decay": "constant"},
    )


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    return Workshop(tmp_path_factory.mktemp("elastic"))


@pytest.fixture(scope="module")
def alone(workshop):
    finish(start([*TRAIN, write(workshop, "alone", 0, 9)]))
    return steps_of(workshop.folder / "alone", *NAMES)


@pytest.mark.parametrize(
    "parts",
    [
        ((2, 2, 3), (4, 1, 3), (6, 2, 3), (9, 3, 2)),  # after step 2 of 2 processes at stage 3 goes 1 on
        ((4, 1, 1), (9, 2, 3)),
        ((4, 2, 0), (9, 1, 0)),
    ],
    ids=["from_stage_3", "to_stage_3", "stage_0"],
)
def test_other_processes_and_stages_continue_the_curve(workshop, alone, parts):
    run = f"from{parts[0][2]}"
    said = [finish(start([*TRAIN, write(workshop, run, stage, steps)], ranks))[0] for steps, ranks, stage in parts]
    for earlier, later, output in zip(parts, parts[1:], said[1:], strict=False):
        rewritten = f"at ZeRO stage {earlier[2]}, this run has {later[1]} process" in output
        assert rewritten == (later[2] > 0)
        assert f"continuing after step {earlier[0]}" in output
    found = steps_of(workshop.folder / run, *NAMES)
    assert list(found) == list(alone) == list(range(1, 10))
    for step, values in alone.items():
        assert found[step] == pytest.approx(values, rel=TOLERANCE)
    assert not list((workshop.folder / run).glob("reshaped*"))


def test_stage_0_has_no_shards_to_rewrite(workshop):
    finish(start([*TRAIN, write(workshop, "plain", 0, 1)]))
    said = finish(start([*TRAIN, write(workshop, "plain", 2, 2)]), status=2)
    assert "by 1 process at ZeRO stage 0, this run has 1 process at 2; shards of stage 0 cannot be" in said[0]
    assert "Start the run with 1 process at stage 0" in said[0]


@pytest.mark.parametrize(("stage", "ranks"), [(0, 1), (2, 2)], ids=["as_before", "other_processes"])
def test_a_prolonged_run_has_the_rates_of_its_new_length(workshop, stage, ranks):
    run, rates = f"longer{stage}", {"learning_rate": 0.005, "decay": "linear"}
    for steps, processes in ((2, 1), (4, ranks)):
        path = write(workshop, run, stage, steps)
        finish(start([*TRAIN, path, *(f"optimization.{name}={value}" for name, value in rates.items())], processes))
    found = [rate for (rate,) in steps_of(workshop.folder / run, "learning_rate").values()]
    assert found == pytest.approx([0.005, 0.0025, 0.0025, 0.00125])
