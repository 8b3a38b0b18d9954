"""How many threads a process computes with: its share of the cores, unless the user says otherwise."""

import os
import subprocess
import sys

import pytest

from tests.support.processes import finish
from tests.support.warm import WarmProcess

SCRIPT = """
import os, torch
from optical_scale.engine.start import finish, start
from optical_scale.runtime.world import World
os.sched_getaffinity = lambda process: set(range(6))
start(World(), seed=0)
print(f'threads={torch.get_num_threads()}')
finish()
"""


def environment(**variables: str) -> dict[str, str]:
    left = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "TORCHELASTIC_RUN_ID")}
    return left | variables | {"DS_ACCELERATOR": "cpu"}


@pytest.mark.parametrize(
    ("variables", "threads"),
    [
        ({}, 6),
        ({"OMP_NUM_THREADS": "1"}, 1),
        # What torchrun sets for whoever names nothing.
        ({"OMP_NUM_THREADS": "1", "TORCHELASTIC_RUN_ID": "run"}, 6),
    ],
)
def test_threads_are_a_share_of_the_cores_unless_named(variables: dict[str, str], threads: int) -> None:
    # Several jobs on one machine, a study's for one, divide its cores by OMP_NUM_THREADS: two trainings with two
    # threads each on two cores were eight times as slow as with one each.
    process = WarmProcess([sys.executable, "-c", SCRIPT], environment(**variables), os.getcwd())
    [printed] = finish([process])
    assert f"threads={threads}" in printed.split(), printed


def test_threads_that_torch_read_when_it_was_imported_are_kept() -> None:
    variables = environment(OMP_NUM_THREADS="2", TORCHELASTIC_RUN_ID="run")
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True, timeout=120)
    assert "threads=2" in done.stdout.split()
