"""`optical-scale launch` starts real processes here; its status tells when one of them fails."""

import os
import subprocess

import pytest

from tests.support.processes import ROOT, TRAIN, free_port
from tests.support.runs import Workshop, steps_of

pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    return Workshop(tmp_path_factory.mktemp("launch"))


def launch(workshop, by, config):
    cluster = workshop.folder / f"cluster_{by}.yaml"
    cluster.write_text(
        f"by: {by}\nprocesses: 2\ngpus: false\nport: {free_port()}\nfolder: {ROOT}\n"
        "environment: {OMP_NUM_THREADS: '1'}\n"
    )
    command = [*TRAIN[:-1], "launch", cluster, config]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=240, check=False)


@pytest.mark.parametrize("by", ["deepspeed", "torchrun"])
def test_a_run_by_two_processes_and_the_status_of_a_failure(workshop, by):
    done = launch(workshop, by, workshop.config(by, optimization={"steps": 2}))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 steps of 8 pairs = 2 processes x 1 micro-batches x 4 pairs" in done.stderr
    assert list(steps_of(workshop.folder / by, "loss")) == [1, 2]
    foreign = workshop.folder / f"foreign_{by}"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("mine")
    failed = launch(workshop, by, workshop.config(f"foreign_{by}", optimization={"steps": 2}))
    assert failed.returncode not in (0, None)
    assert "is not empty and has no config.yaml" in failed.stderr
