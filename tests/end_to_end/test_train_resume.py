"""Runs that are stopped, killed, mistaken for others and exported, all through `optical-scale train`."""

import json
import math
import os
import re
import signal
import time

import pytest
from safetensors.torch import load_file

from optical_scale.config.export import ExportConfig
from optical_scale.config.loading import load
from optical_scale.config.metrics import logged, of_objective
from optical_scale.config.run import TrainConfig
from optical_scale.recipes.export import export
from optical_scale.runtime.stopping import STOPPED
from tests.support.processes import TRAIN, finish, start
from tests.support.runs import Workshop, names_logged, steps_of

pytestmark = pytest.mark.end_to_end

STEPS = 15
PARTS = ({"name": "optimal_transport", "epsilon": 0.05, "iterations": 10, "marginals": "idf"}, {"name": "mse"})
LAST = f"checkpoints/step_{STEPS:06d}"


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    return Workshop(tmp_path_factory.mktemp("resume"))


def long_config(workshop, run, **sections):
    """Dropout, both model's ZeRO stages 3, a log line every third step, a checkpoint every fourth."""
    settings = {
        "objective": {"parts": [{"weight": 1.0, "objective": part} for part in PARTS]},
        "optimization": {"steps": STEPS},
        "logging": {"every": 3},
        "checkpoints": {"every": 4, "keep": 2, "at_start": True, "asynchronous": True},
        "evaluation": [{"name": "bitext", "shards": str(workshop.shards), "limit": 8}],
    }
    return workshop.config(run, dropout=0.1, **settings | sections)


def interrupt(command, run, step, number):
    """Start ``command``, wait until its metrics hold ``step``, send the signal; returns status and output."""
    (process,) = start(command)
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if (run / "metrics.jsonl").exists() and step in steps_of(run, "loss"):
            os.killpg(process.pid, number)
            break
        time.sleep(0.01)
    output, _ = process.communicate(timeout=60)
    return process.returncode, output


def checkpoints(run):
    return sorted(path.name for path in (run / "checkpoints").glob("step_*"))


@pytest.fixture(scope="module")
def smooth(workshop):
    finish(start([*TRAIN, long_config(workshop, "smooth")]))
    return workshop.folder / "smooth"


@pytest.fixture(scope="module")
def rough(workshop):
    """The same training: asked to stop, killed, left with half a checkpoint, and at last finished."""
    run = workshop.folder / "rough"
    command = [*TRAIN, long_config(workshop, "rough")]
    story = {"run": run, "stopped": interrupt(command, run, 3, signal.SIGTERM), "after_stop": checkpoints(run)}
    story["killed"] = interrupt(command, run, 9, signal.SIGKILL)
    (run / "checkpoints" / "step_000099" / "student").mkdir(parents=True)
    (run / "checkpoints" / ".step_000098.tmp").mkdir()
    (story["finished"],) = finish(start(command))
    return story


def test_a_request_to_stop_ends_well_with_a_checkpoint(rough):
    status, output = rough["stopped"]
    assert status == STOPPED, output
    assert "stopped on request after step" in output
    newest = int(rough["after_stop"][-1].removeprefix("step_"))
    assert 3 <= newest < STEPS, "the run was too fast to be stopped"
    assert f"stopped on request after step {newest};" in output


def test_a_killed_run_continues_past_half_a_checkpoint(rough):
    status, output = rough["killed"]
    assert status == -signal.SIGKILL, output
    assert f"continuing after step {int(rough['after_stop'][-1].removeprefix('step_'))} from" in output
    assert "step_000099: it has no COMPLETE file" in rough["finished"]
    assert "continuing after step" in rough["finished"]
    assert checkpoints(rough["run"])[-2:] == [f"step_{STEPS:06d}", "step_000099"]
    assert not list((rough["run"] / "checkpoints").glob(".*.tmp"))


def test_the_continued_run_is_the_uninterrupted_one(smooth, rough):
    names = ("loss", "optimal_transport", "mse", "gradient_norm", "learning_rate")
    assert list(steps_of(smooth, *names)) == [3, 6, 9, 12, 15]
    assert steps_of(rough["run"], *names) == steps_of(smooth, *names)
    states = [json.loads((run / LAST / "train_state.json").read_text()) for run in (smooth, rough["run"])]
    assert states[0] == states[1]
    assert {result["step"] for result in states[0]["results"]} == {0, STEPS}
    streams = [json.loads((run / LAST / "stream.json").read_text()) for run in (smooth, rough["run"])]
    assert streams[0] == streams[1]


def test_alarms_know_all_that_a_run_logs(smooth):
    config = load(TrainConfig, smooth / "config.yaml")
    assert names_logged(smooth) <= set(logged(config.objective, towers=False))
    assert set(of_objective(config.objective)) <= names_logged(smooth)


def test_an_alarm_on_transport_stops_the_run_and_keeps_what_it_has(workshop):
    alarms = {"after": 2, "limits": [{"metric": "effective_matches", "above": 0.5}]}  # of one match and more
    (output,) = finish(start([*TRAIN, long_config(workshop, "alarmed", alarms=alarms)]), status=2)
    assert re.search(r"error: step 6: effective_matches is [\d.]+, above 0\.5 for 2 logged steps in a row", output)
    assert "Traceback" not in output
    assert "the teacher is random and teaches nothing" in output
    run = workshop.folder / "alarmed"
    assert list(steps_of(run, "loss")) == [3, 6]
    assert checkpoints(run) == ["step_000000", "step_000004"]


def test_both_export_the_same_weights_without_loss(smooth, rough, tmp_path):
    weights = []
    for run in (smooth, rough["run"] / LAST):
        output = tmp_path / str(len(weights))
        report = export(ExportConfig(checkpoint=run, output=output))
        assert report.verification.difference == 0.0
        weights.append(load_file(output / "model.safetensors"))
    assert weights[0].keys() == weights[1].keys()
    assert all(bool((weights[0][name] == weights[1][name]).all()) for name in weights[0])


def test_what_may_not_continue_is_refused(workshop, smooth):
    before = (smooth / "config.yaml").read_text()
    foreign = workshop.folder / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("mine")
    other_rate = start([*TRAIN, long_config(workshop, "smooth"), "optimization.learning_rate=0.001"])
    other_folder = start([*TRAIN, long_config(workshop, "foreign")])
    (output,) = finish(other_rate, status=2)
    assert "error: the run folder holds another run" in output
    assert "optimization.learning_rate: was 0.005, is 0.001" in output
    assert "Traceback" not in output
    assert (smooth / "config.yaml").read_text() == before
    (output,) = finish(other_folder, status=2)
    assert f"error: run: {foreign} is not empty and has no config.yaml" in output
    assert os.listdir(foreign) == ["thesis.tex"]


def test_bf16_learns_and_exports_its_fp32_weights(workshop, tmp_path):
    engine = {"precision": "bf16", "zero_stage": 2}
    path = workshop.config(
        "bf16", student={"engine": engine}, teacher=workshop.teacher | {"engine": {"precision": "bf16"}}
    )
    finish(start([*TRAIN, path]))
    losses = [loss for (loss,) in steps_of(workshop.folder / "bf16", "loss").values()]
    assert all(map(math.isfinite, losses))
    assert losses[-1] < losses[0] / 2
    export(ExportConfig(checkpoint=workshop.folder / "bf16", output=tmp_path / "model"))
    weights = load_file(tmp_path / "model" / "model.safetensors")
    matrix = next(value for name, value in weights.items() if "dense.weight" in name)
    assert bool((matrix != matrix.bfloat16().float()).any())
