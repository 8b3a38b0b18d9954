"""Whatever the ZeRO stage and the number of processes, training is the same: `optical-scale train` on a tiny model."""

import json
import os
import subprocess

import pytest

from optical_scale.engine.launch import launch_command
from tests.support.processes import ROOT, TRAIN, environment, finish, start
from tests.support.runs import Workshop, steps_of

pytestmark = pytest.mark.distributed

# fp32 sums in another order differ by some 1e-7 relative; Adam's steps carry that on for six updates.
TOLERANCE = 1e-5
STEPS = 6

# name: (processes, student stage, teacher stage, pairs per micro-batch, without padding); 8 pairs a step, so 2 pairs
# accumulate twice.
RUNS = {
    "alone": (1, 0, 0, 4, False),
    "stage0": (2, 0, 0, 4, False),
    "stage1": (2, 1, 3, 4, False),
    "stage2": (2, 2, 0, 2, True),
    "stage3": (2, 3, 3, 2, True),
}


PARTS = [
    {"weight": 1.0, "objective": {"name": "optimal_transport", "epsilon": 0.05, "iterations": 10}},
    {"weight": 0.5, "objective": {"name": "optimal_transport"}, "layers": {"teacher": 1, "student": 1}},
    {"weight": 0.5, "objective": {"name": "mse"}},
]


def write(workshop, name, stage, teacher_stage, micro_batch_pairs, packed=False):
    teacher = {"zero_stage": teacher_stage, "persistent_parameters": 0, "packed": packed}
    return workshop.config(
        name,
        stream={"micro_batch_pairs": micro_batch_pairs},
        student={"engine": {"zero_stage": stage, "persistent_parameters": 100, "packed": packed}},
        teacher=workshop.teacher | {"engine": teacher},
        objective={"parts": PARTS},
        optimization={"steps": STEPS},
    )


@pytest.fixture(scope="module")
def curves(tmp_path_factory):
    workshop = Workshop(tmp_path_factory.mktemp("zero"))
    for name, (processes, *settings) in RUNS.items():
        finish(start([*TRAIN, write(workshop, name, *settings)], processes))
    # One more run through the launcher that users start, which sets the ranks itself.
    path = write(workshop, "launched", 3, 0, 4)
    command = launch_command(2, "optical_scale", ["train", str(path)])
    given = environment()
    variables = os.environ | {name: given[name] for name in ("OMP_NUM_THREADS", "DS_ACCELERATOR", "PYTHONPATH")}
    done = subprocess.run(command, env=variables, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return {name: steps_of(workshop.folder / name, "loss", "gradient_norm") for name in (*RUNS, "launched")} | {
        "pairs": [pairs_of(workshop.folder / name) for name in RUNS]
    }


def pairs_of(run):
    state = json.loads((run / f"checkpoints/step_{STEPS:06d}/train_state.json").read_text())
    return state["pairs"]


def test_training_alone_learns(curves):
    losses = [loss for loss, _ in curves["alone"].values()]
    assert list(curves["alone"]) == list(range(1, STEPS + 1))
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("name", [*list(RUNS)[1:], "launched"])
def test_two_processes_equal_one(curves, name):
    for step, values in curves["alone"].items():
        assert curves[name][step] == pytest.approx(values, rel=TOLERANCE), f"loss and gradient norm of step {step}"


def test_pairs_of_all_processes_are_counted(curves):
    assert all(pairs == {"de": 4 * STEPS, "sw": 4 * STEPS} for pairs in curves["pairs"])
