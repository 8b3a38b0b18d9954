"""What trackers are told, in real files of their own, and that none of them can stop a run."""

import importlib.util
import json
import logging
import os
import subprocess
import sys

import pytest

from optical_scale.errors import ConfigError
from optical_scale.training.state import TrainState
from optical_scale.training.trackers import Tracked, check_installed, mlflow, tensorboard

RESULT = {
    "evaluation": "bitext:news",
    "language": "sw",
    "mode": "dense",
    "direction": "text_to_text",
    "metrics": {"MRR": 0.5},
}
NAME = "bitext/news/text_to_text/dense/MRR/sw"


def state(step):
    return TrainState(step=step)


def play(open_sink, steps, finished):
    hook = Tracked("tracker", open_sink)
    for step in steps:
        hook.stepped(state(step), {"loss": 1.0 / step})
    hook.evaluated(state(steps[-1]), [RESULT])
    hook.ended(finished)


def test_tensorboard_forgets_the_steps_that_are_taken_again(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    play(tensorboard(tmp_path), [10, 20, 30], finished=False)
    play(tensorboard(tmp_path), [20, 30, 40], finished=True)
    found = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert [(event.step, event.value) for event in found.Scalars("loss")] == [
        (step, pytest.approx(1 / step)) for step in (10, 20, 30, 40)
    ]
    assert [(event.step, event.value) for event in found.Scalars(NAME)] == [(40, 0.5)]


def test_mlflow_goes_on_in_the_same_run(tmp_path, monkeypatch):
    library = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    opened = mlflow(tmp_path, "experiment", "name", {"seed": 3})
    play(opened, [10, 20], finished=False)
    client = library.MlflowClient()
    identity = json.loads((tmp_path / "trackers.json").read_text())["mlflow"]
    assert client.get_run(identity).info.status == "KILLED"
    play(opened, [20, 30], finished=True)
    run = client.get_run(identity)
    assert (run.info.status, run.info.run_name, run.data.metrics[NAME]) == ("FINISHED", "name", 0.5)
    assert sorted({metric.step for metric in client.get_metric_history(identity, "loss")}) == [10, 20, 30]
    assert len(client.search_runs([client.get_experiment_by_name("experiment").experiment_id])) == 1


def test_wandb_goes_on_under_the_same_id(tmp_path):
    pytest.importorskip("wandb")
    code = f"""
from pathlib import Path
from tests.unit.training.test_trackers import play
from optical_scale.training.trackers import wandb
for steps in ([10, 20], [20, 30]):
    play(wandb(Path({str(tmp_path)!r}), "project", "name", {{"seed": 3}}), steps, finished=True)
"""
    environment = os.environ | {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    identity = json.loads((tmp_path / "trackers.json").read_text())["wandb"]
    written = [path.name for path in (tmp_path / "wandb").glob(f"offline-run-*{identity}*/*.wandb")]
    assert len(written) == 2
    assert set(written) == {f"run-{identity}.wandb"}


def test_a_service_that_fails_is_named_once(caplog):
    class Broken:
        def log(self, step, values):
            raise ConnectionError("no route to host")

        def close(self, finished):
            raise AssertionError("left alone")

    caplog.set_level(logging.WARNING, logger="optical_scale")
    play(lambda step: Broken(), [10, 20, 30], finished=True)
    (warning,) = caplog.messages
    assert "tracker failed and is left alone from now on: no route to host" in warning


def test_a_missing_package_is_told_before_training(monkeypatch):
    check_installed([])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"logging.trackers: wandb not installed; .*optical-scale\[trackers\]"):
        check_installed(["wandb"])
