"""Starting several processes on this machine through the deepspeed launcher."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence

import torch

from optical_scale.runtime.stopping import StopRequests


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


def launch(processes: int, module: str, arguments: Sequence[str], requests: StopRequests | None = None) -> int:
    """Run and wait; the exit status is 0 only if every process ended well.

    Args:
        processes: on this machine.
        module: run as ``python -m module``.
        arguments: of it.
        requests: to this process, to stop; handed on to the others, which end when they have saved. Without it, what
            ends this process ends them.
    """
    environment = dict(os.environ)
    if not torch.cuda.is_available():
        environment.setdefault("DS_ACCELERATOR", "cpu")
    # The launchers between this process and the ranks would kill the ranks when they get a signal themselves, so they
    # ignore the one that is handed on; Python's own handlers, which only the ranks set, replace that.
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    process = subprocess.Popen(launch_command(processes, module, arguments), env=environment, process_group=0)
    signal.signal(signal.SIGUSR1, before)
    try:
        return _wait(process, requests)
    except (KeyboardInterrupt, SystemExit) as left:
        _send(process, signal.SIGINT if isinstance(left, KeyboardInterrupt) else signal.SIGTERM)
        process.wait()
        raise


def _wait(process: subprocess.Popen[bytes], requests: StopRequests | None) -> int:
    told = requests is None
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(0.2)
        if requests is not None and requests.asked and not told:
            _send(process, signal.SIGUSR1)
            told = True


def _send(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
