"""What docs/faults.md says happens, made to happen."""

import json
import os
import resource
import signal
import subprocess
import time

import pytest

from optical_scale.runtime.stopping import STOPPED
from tests.support.processes import ROOT, TRAIN, environment, finish, start
from tests.support.runs import Workshop, steps_of

pytestmark = pytest.mark.end_to_end

STEPS = 8
LAUNCHED = ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    return Workshop(tmp_path_factory.mktemp("faults"))


def config(workshop, run, **sections):
    return workshop.config(
        run, dropout=0.1, **{"optimization": {"steps": STEPS}, "checkpoints": {"every": 2, "keep": 9}} | sections
    )


@pytest.fixture(scope="module")
def smooth(workshop):
    finish(start([*TRAIN, config(workshop, "smooth")]))
    return workshop.folder / "smooth"


def test_killed_in_the_middle_of_a_save_continues_from_the_checkpoint_before(workshop, smooth):
    run = workshop.folder / "torn"
    (process,) = start([*TRAIN, config(workshop, "torn")])
    torn = run / "checkpoints" / ".step_000004.tmp"
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline and not (torn / "student").exists():
        pass
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert torn.exists(), "the save was too fast to be torn"
    assert not (torn / "COMPLETE").exists()
    (output,) = finish(start([*TRAIN, config(workshop, "torn")]))
    assert "continuing after step 2 from" in output
    assert not torn.exists()
    assert steps_of(run, "loss", "gradient_norm") == steps_of(smooth, "loss", "gradient_norm")


def test_a_second_run_in_the_same_folder_is_refused(workshop):
    path = config(workshop, "shared", optimization={"steps": 2000})
    run = workshop.folder / "shared"
    (first,) = start([*TRAIN, path])
    deadline = time.monotonic() + 120
    while first.poll() is None and time.monotonic() < deadline and not (run / "metrics.jsonl").exists():
        time.sleep(0.05)
    (output,) = finish(start([*TRAIN, path]), status=2)
    assert f"another process trains in {run}" in output
    assert first.poll() is None
    os.killpg(first.pid, signal.SIGTERM)
    output, _ = first.communicate(timeout=60)
    assert first.returncode == STOPPED, output


def test_a_full_disk_ends_the_run_and_leaves_the_last_checkpoint(workshop, smooth):
    run = workshop.folder / "full"
    path = config(workshop, "full")
    finish(start([*TRAIN, path, "optimization.steps=2"]))
    limit = max(file.stat().st_size for file in run.rglob("*.pt")) // 2
    process = subprocess.run(
        [*TRAIN, path],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert process.returncode not in (0, None)
    assert [found.name for found in (run / "checkpoints").glob("step_*")] == ["step_000002"]
    (output,) = finish(start([*TRAIN, path]))
    assert "continuing after step 2 from" in output
    last = json.loads((run / "checkpoints" / f"step_{STEPS:06d}" / "train_state.json").read_text())
    assert last["step"] == STEPS


def test_a_request_to_stop_during_an_evaluation_is_kept(workshop):
    path = config(
        workshop,
        "evaluated",
        evaluation=[{"name": "bitext", "shards": str(workshop.shards), "limit": 48}],
        evaluation_times={"every": 1, "batch_size": 1},
        optimization={"steps": 400},
    )
    run = workshop.folder / "evaluated"
    (process,) = start([*TRAIN, path])
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if (run / "metrics.jsonl").exists() and 1 in steps_of(run, "loss"):
            os.killpg(process.pid, signal.SIGTERM)  # the evaluation after step 1 begins
            break
    output, _ = process.communicate(timeout=60)
    assert process.returncode == STOPPED, output
    assert "stopped on request after step 1;" in output
    assert (run / "checkpoints" / "step_000001" / "COMPLETE").exists()


def test_a_request_to_stop_before_the_first_step_reaches_all_processes(workshop):
    """SIGTERM to the one process that the user started, which hands it on to the two ranks."""
    run = workshop.folder / "early"
    path = config(workshop, "early")
    variables = {name: value for name, value in environment().items() if name not in LAUNCHED}
    process = subprocess.Popen(
        [*TRAIN, path, "--processes", "2"],
        env=variables, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline and not (run / "config.yaml").exists():
        time.sleep(0.01)
    process.terminate()  # the ranks have met, and build their models now
    output, _ = process.communicate(timeout=60)
    assert process.returncode == STOPPED, output
    assert "stopped on request after step 0; the same command continues" in output
    assert not (run / "checkpoints").exists()
    # Nothing has begun, so other settings may be given to it.
    finish(start([*TRAIN, path, "optimization.steps=1", "seed=4"]))
