"""Real processes: n gloo ranks that call a function of a test module, or any command as n ranks.

Run as a module this file is one such rank: ``python -m tests.support.processes MODULE FUNCTION ARGUMENT …``.
"""

import importlib
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.support.warm import WarmProcess

ROOT = Path(__file__).resolve().parents[2]
TRAIN = (sys.executable, "-m", "optical_scale", "train")


def environment(rank: int = 0, size: int = 1, port: int = 0) -> dict[str, str]:
    """The variables a launcher would set for one rank, with one thread each."""
    return os.environ | {
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port or free_port()),
        "OMP_NUM_THREADS": "1",
        "DS_ACCELERATOR": "cpu",
        "PYTHONPATH": str(ROOT),
    }


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(command: Sequence[str | Path], size: int = 1) -> list[WarmProcess]:
    """Start a Python command as ``size`` ranks of one run, in their own sessions."""
    port = free_port()
    return [WarmProcess(list(map(str, command)), environment(rank, size, port), str(ROOT)) for rank in range(size)]


def finish(processes: Sequence[WarmProcess], timeout: float = 240, status: int = 0) -> list[str]:
    """Wait for all ranks and return what each printed.

    Raises:
        AssertionError: a rank ended with another status or not in time; the message holds its output.
    """
    outputs = []
    try:
        for rank, process in enumerate(processes):
            try:
                output, _ = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                output, _ = process.communicate()
                raise AssertionError(f"rank {rank} was still running after {timeout} s:\n{output}") from None
            assert process.returncode == status, f"rank {rank} ended with status {process.returncode}:\n{output}"
            outputs.append(output)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()
    return outputs


def run_ranks(module: str, function: str, *arguments: str | Path, size: int = 2, timeout: float = 60) -> list[str]:
    """Call ``module.function(*arguments)`` on ``size`` gloo ranks; returns what each printed."""
    command = [sys.executable, "-m", "tests.support.processes", module, function, *arguments]
    return finish(start(command, size), timeout)


def _main() -> None:
    import torch.distributed as dist

    module, function, *arguments = sys.argv[1:]
    dist.init_process_group("gloo")
    getattr(importlib.import_module(module), function)(*arguments)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    _main()
