"""Batches by budget and unusable samples, in real training processes."""

import json

import pytest

from tests.support.processes import TRAIN, finish, start
from tests.support.runs import Workshop, steps_of

pytestmark = pytest.mark.distributed

TOLERANCE = 1e-5
BUDGET = {"micro_batch_pairs": None, "bucketing": {"look_ahead": 32, "transport": 600, "lanes": 2}}
RUNS = {"alone": (1, 0), "stage0": (2, 0), "stage2": (2, 2), "stage3": (2, 3)}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    return Workshop(tmp_path_factory.mktemp("stream"))


def config(workshop, name, stream, stage=0):
    parts = [
        {"weight": 1.0, "objective": {"name": "optimal_transport", "epsilon": 0.05, "iterations": 10}},
        {"weight": 0.5, "objective": {"name": "mse"}},
    ]
    engine = {"zero_stage": stage, "persistent_parameters": 100}
    return workshop.config(name, stream=stream, student={"engine": engine}, objective={"parts": parts})


def test_steps_of_varying_size_are_the_same_on_two_processes(workshop):
    for name, (processes, stage) in RUNS.items():
        finish(start([*TRAIN, config(workshop, name, BUDGET, stage)], processes))
    curves = {name: steps_of(workshop.folder / name, "loss", "gradient_norm") for name in RUNS}
    assert len(curves["alone"]) == 6
    for name in RUNS:
        for step, values in curves["alone"].items():
            assert curves[name][step] == pytest.approx(values, rel=TOLERANCE), f"{name}, step {step}"


def test_a_damaged_shard_stops_all_ranks_or_is_counted_on_all(tmp_path):
    workshop = Workshop(tmp_path)
    shard = workshop.shards / "bitext-sw-000000.tar"
    data = bytearray(shard.read_bytes())
    data[1024 + 600] ^= 0xFF  # one sample
    shard.write_bytes(data)
    outputs = finish(start([*TRAIN, config(workshop, "strict", {}), "optimization.steps=12"], 2), status=2)
    assert sum("the bytes differ" in output for output in outputs) == 1
    assert sum("the data of 1 other rank(s) failed" in output for output in outputs) == 1

    skip = {"faults": {"policy": "skip", "most": 1}}
    finish(start([*TRAIN, config(workshop, "lenient", skip), "optimization.steps=12"], 2))
    last = json.loads((workshop.folder / "lenient" / "metrics.jsonl").read_text().splitlines()[-1])
    assert (last["step"], last["skipped_damaged_sample"]) == (12, 1.0)
    (checkpoint,) = (workshop.folder / "lenient" / "checkpoints").glob("step_000012")
    assert json.loads((checkpoint / "train_state.json").read_text())["skipped"] == {"damaged sample": 1}

    skip["faults"]["most"] = 0
    outputs = finish(start([*TRAIN, config(workshop, "limit", skip), "optimization.steps=12"], 2), status=2)
    assert all("more than the 0 that stream.faults.most allows" in output for output in outputs)
