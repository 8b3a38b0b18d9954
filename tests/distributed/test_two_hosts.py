"""Two hosts with addresses of their own, ssh, pdsh and gloo: train, lose a host, start again, continue."""

import os
import subprocess
import sys
import time

import pytest

from tests.support.hosts import Hosts, why_not
from tests.support.processes import ROOT, TRAIN
from tests.support.runs import Workshop, steps_of

REASON = why_not()
pytestmark = [pytest.mark.distributed, pytest.mark.skipif(REASON is not None, reason=str(REASON))]

STEPS = 40
MOST_SECONDS = 60


@pytest.fixture
def hosts(tmp_path):
    found = Hosts(tmp_path / "hosts")
    yield found
    found.close()


def test_a_lost_host_is_named_and_the_run_continues(hosts, tmp_path):
    workshop = Workshop(tmp_path / "workshop")
    settings = {"optimization": {"steps": STEPS}, "checkpoints": {"every": 5}}
    run = workshop.folder / "run"
    cluster = tmp_path / "cluster.yaml"
    cluster.write_text(
        f"by: deepspeed\nnodes: 2\nhosts: [node1, node2]\nprocesses: 1\ngpus: false\nport: 29777\nfolder: {ROOT}\n"
        f"environment: {{GLOO_SOCKET_IFNAME: eth0, OMP_NUM_THREADS: '1', PYTHONPATH: '{ROOT}'}}\n"
    )
    words = hosts.command(1, *TRAIN[:-1], "launch", cluster, workshop.config("run", **settings))
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}",
        "DS_ACCELERATOR": "cpu",
    }

    def start():
        return subprocess.Popen(
            words, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    first = start()
    deadline = time.monotonic() + 240
    while first.poll() is None and time.monotonic() < deadline:
        if (run / "checkpoints" / "step_000005").exists():
            break
        time.sleep(0.05)
    hosts.kill(2)
    lost = time.monotonic()
    output, _ = first.communicate(timeout=180)
    took = time.monotonic() - lost
    assert first.returncode != 0, output
    assert "host node2 (10.77.0.2, rank 1) does not answer any more" in output, output
    assert took < MOST_SECONDS, f"{took:.1f} s"
    done = max(steps_of(run, "loss"))
    assert done < STEPS, "the run was too fast to lose a host"
    without = start()
    output, _ = without.communicate(timeout=MOST_SECONDS)
    assert without.returncode == 2, output
    assert "problem  host node2" in output
    assert "not usable yet: host node2" in output
    hosts.boot(2)
    second = start()
    output, _ = second.communicate(timeout=300)
    assert second.returncode == 0, output
    assert "continuing after step" in output
    assert max(steps_of(run, "loss")) == STEPS
