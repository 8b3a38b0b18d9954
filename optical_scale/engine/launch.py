"""Starting several processes on this machine through the deepspeed launcher."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence

import torch


def default_processes() -> int:
    """One process per visible GPU, or two on a CPU machine with at least two cores."""
    if torch.cuda.is_available() and os.environ.get("DS_ACCELERATOR") != "cpu":
        return torch.cuda.device_count()
    return min(2, len(os.sched_getaffinity(0)))


def launch_command(processes: int, module: str, arguments: Sequence[str]) -> list[str]:
    """The command line that runs ``python -m module arguments`` in ``processes`` processes on this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launcher = [sys.executable, "-m", "deepspeed.launcher.runner"]
    # hostfile: a cluster's default /job/hostfile must not turn a local run into a remote one.
    options = ["--hostfile", os.devnull, "--num_gpus", str(processes), "--master_port", str(port), "--no_local_rank"]
    return [*launcher, *options, "--quiet", "--module", module, *arguments]


def launch(processes: int, module: str, arguments: Sequence[str]) -> int:
    """Run and wait; the exit status is 0 only if every process ended well."""
    environment = dict(os.environ)
    if not torch.cuda.is_available():
        environment.setdefault("DS_ACCELERATOR", "cpu")
    return subprocess.run(launch_command(processes, module, arguments), env=environment, check=False).returncode
