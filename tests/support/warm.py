"""Processes that begin with the libraries imported, forked from a server that imported them once.

Importing torch, DeepSpeed and transformers takes four seconds of a core, more than most tests train. These are real
processes all the same, with an environment, a session, signals and an exit status of their own. What depends on how a
process starts (launchers, hosts, the command line) is tested with cold ones.
"""

import atexit
import importlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from multiprocessing.connection import Connection

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["optical_scale.recipes.train", "optical_scale.engine.start", "deepspeed"])
# What libraries read when they are imported, or start threads by.
_BEFORE_IMPORTS = {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}


class WarmProcess:
    """``python -m``, ``-c`` or a file, in a forked process, with the part of ``subprocess.Popen`` that tests use."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], folder: str) -> None:
        self.args = list(command)
        reader, writer = _SERVER.Pipe(duplex=False)
        given = os.environ.copy()
        os.environ.update(_BEFORE_IMPORTS)
        try:
            forkserver.ensure_running()
        finally:
            os.environ.clear()
            os.environ.update(given)
        self._process = _SERVER.Process(target=_run, args=(self.args, dict(environment), folder, writer))
        self._process.start()
        writer.close()
        self.stdout = os.fdopen(os.dup(reader.fileno()), "r", encoding="utf-8")
        reader.close()
        self.pid = self._process.pid
        self._read: list[str] = []
        self._reading: threading.Thread | None = None

    @property
    def returncode(self) -> int | None:
        """The exit status, minus the signal that ended the process, or None while it runs."""
        return self._process.exitcode

    poll = returncode.fget

    def wait(self, timeout: float | None = None) -> int:
        """Until the end.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """Wait, and return what was printed; raises as :meth:`wait`, and may be called again after that."""
        deadline = None if timeout is None else time.monotonic() + timeout
        if self._reading is None:
            self._reading = threading.Thread(target=self._read_all, daemon=True)
            self._reading.start()
        self._reading.join(timeout)
        if self._reading.is_alive():
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        self.wait(None if deadline is None else max(0.1, deadline - time.monotonic()))
        return self._read[0], None

    def _read_all(self) -> None:
        with self.stdout:
            self._read.append(self.stdout.read())

    def send_signal(self, number: int) -> None:
        """Deliver a signal unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)


def _run(command: list[str], environment: dict[str, str], folder: str, output: Connection) -> None:
    os.setsid()
    for stream in (1, 2):
        os.dup2(output.fileno(), stream)
    output.close()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    importlib.invalidate_caches()
    # A child takes its parent's, by which every worker of a DataLoader would start a cold server of its own.
    multiprocessing.set_start_method(None, force=True)
    what, rest = command[1], command[2:]
    sys.argv = {"-m": rest, "-c": ["-c", *rest[1:]]}.get(what, command[1:])
    status = 0
    try:
        if what == "-m":
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        elif what == "-c":
            exec(rest[0], {"__name__": "__main__"})
        else:
            runpy.run_path(what, run_name="__main__")
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    # As an interpreter ends; multiprocessing would leave out the second.
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
