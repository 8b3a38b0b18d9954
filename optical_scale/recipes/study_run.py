"""Run the cells of a study: each by the ordinary verbs in processes of its own, several side by side."""

import contextlib
import fcntl
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from math import prod
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import Literal

import torch

from optical_scale.config.study import Study
from optical_scale.recipes.study_grid import Cell, write_configs
from optical_scale.runtime.files import write_json
from optical_scale.runtime.stopping import STOPPED
from optical_scale.training.checkpoint import BEST

logger = logging.getLogger(__name__)

RESULT = "cell.json"
FAILED = "failed.json"
_LAUNCHED = ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_TAIL = 2000

Status = Literal["done", "failed", "stopped", "busy"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a cell ended: ``done``, ``failed`` (the reason in words), ``stopped`` on request, ``busy`` elsewhere."""

    cell: Cell
    status: Status
    reason: str = ""


def is_done(cell: Cell) -> bool:
    """Whether the cell's results are there, whole, and of these very settings."""
    try:
        result = json.loads((cell.folder / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(result.get("identity") == cell.identity) and (cell.folder / "report" / "report.json").is_file()


def run_cells(study: Study, cells: Sequence[Cell]) -> list[Outcome]:
    """Run the cells that are not done, ``study.jobs`` side by side; a failing one does not stop the others.

    SIGINT, SIGTERM and SIGUSR1 ask the running trainings to save a checkpoint and start no further cell; the same call
    continues.

    Returns:
        One outcome per cell that was not done already, in the order of their end.
    """
    pending = [cell for cell in cells if not is_done(cell)]
    logger.info("%d of %d cells are done; %d to run", len(cells) - len(pending), len(cells), len(pending))
    if not pending:
        return []
    runner = _Runner(study)
    outcomes: list[Outcome] = []
    began = time.monotonic()
    with runner.signals(), ThreadPoolExecutor(study.jobs) as pool:
        for future in as_completed([pool.submit(runner.run, cell) for cell in pending]):
            outcome = future.result()
            outcomes.append(outcome)
            worked = [one for one in outcomes if one.status in ("done", "failed")]
            left = len(pending) - len(outcomes)
            spent = time.monotonic() - began
            remaining = f", about {_duration(spent / len(worked) * left)}" if worked and left else ""
            log = logger.info if outcome.status == "done" else logger.warning
            log(
                "[%d/%d] %s %s%s; %d left%s", len(outcomes), len(pending), outcome.cell.name, outcome.status,
                f": {outcome.reason}" if outcome.reason else "", left, remaining,
            )  # fmt: skip
    return outcomes


class _Runner:
    """What the threads of one call share: places on the machine, running processes, the wish to stop."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.stopping = threading.Event()
        self._places: SimpleQueue[int] = SimpleQueue()
        for place in range(study.jobs):
            self._places.put(place)
        self._running: set[subprocess.Popen[bytes]] = set()
        self._guard = threading.Lock()

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """While the block runs, a request to stop is handed to the running processes."""

        def ask(number: int, frame: FrameType | None) -> None:
            self.stopping.set()
            for process in list(self._running):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM)

        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
        before = {number: signal.signal(number, ask) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def run(self, cell: Cell) -> Outcome:
        """One cell, on the first free place."""
        if self.stopping.is_set():
            return Outcome(cell, "stopped")
        place = self._places.get()
        try:
            with _lock(cell.folder) as lock:
                if lock is None:
                    return Outcome(cell, "busy", "another process works on it")
                return self._run(cell, environment(place, self.study), lock)
        finally:
            self._places.put(place)

    def _run(self, cell: Cell, variables: dict[str, str], lock: int) -> Outcome:
        began = time.monotonic()
        _make_room(cell)
        write_configs(cell)
        processes = self.study.processes or max(1, len(_devices(variables)))
        chosen = cell.train.run / "checkpoints" / BEST if cell.train.checkpoints.keep_best else cell.train.run
        verbs = [
            ["train", str(cell.folder / "train.yaml"), "--processes", str(processes)],
            ["export", str(chosen), "--output", str(cell.model)],
            ["evaluate", str(cell.folder / "evaluate.yaml")],
        ]
        for words in verbs if not cell.model.exists() else verbs[2:]:
            logger.info("%s: %s", cell.name, words[0])
            status = self._call(cell, words, variables, lock)
            if self.stopping.is_set() and status:
                return Outcome(cell, "stopped")
            if status:
                reason = f"`{words[0]}` " + ("was stopped" if status == STOPPED else f"ended with status {status}")
                log = cell.folder / f"{words[0]}.log"
                tail = log.read_bytes()[-_TAIL:].decode("utf-8", errors="replace")
                write_json(cell.folder / FAILED, {"verb": words[0], "status": status, "tail": tail})
                lines = [line for line in tail.splitlines() if line.strip()]
                said = next((line for line in reversed(lines) if "rror" in line), lines[-1] if lines else "")
                return Outcome(cell, "failed", f"{reason}: {said.strip()[:300]} (all of it in {log})")
        facts = {"identity": cell.identity, "labels": dict(cell.labels), "parameters": parameters(cell.model)}
        (cell.folder / FAILED).unlink(missing_ok=True)
        write_json(cell.folder / RESULT, {**facts, "seconds": round(time.monotonic() - began, 1)})
        if self.study.keep != "all":
            shutil.rmtree(cell.train.run / "checkpoints", ignore_errors=True)
        if self.study.keep == "results":
            shutil.rmtree(cell.model)
        return Outcome(cell, "done")

    def _call(self, cell: Cell, words: list[str], variables: dict[str, str], lock: int) -> int:
        """Run a verb, with its output in the cell's log; returns the exit status, negative for a signal."""
        with (cell.folder / f"{words[0]}.log").open("ab") as log, self._guard:
            if self.stopping.is_set():
                return -signal.SIGTERM
            process = subprocess.Popen(
                [sys.executable, "-m", "optical_scale", *words],
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C reaches this process alone, which hands it on; the lock lives as long as the work does.
                start_new_session=True,
                pass_fds=(lock,),
            )
            self._running.add(process)
        try:
            return process.wait()
        finally:
            self._running.discard(process)


def _make_room(cell: Cell) -> None:
    """Remove what other settings or an interrupted evaluation left; the checkpoints of the run stay."""
    cell.folder.mkdir(parents=True, exist_ok=True)
    result = cell.folder / RESULT
    made_by = None
    with contextlib.suppress(OSError, ValueError):
        made_by = json.loads((cell.folder / "attempt.json").read_text(encoding="utf-8"))["identity"]
    if made_by != cell.identity:
        shutil.rmtree(cell.model, ignore_errors=True)
    result.unlink(missing_ok=True)
    shutil.rmtree(cell.folder / "report", ignore_errors=True)
    write_json(cell.folder / "attempt.json", {"identity": cell.identity})


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[int | None]:
    """Hold the cell, so that calls on several machines or terminals do not work on one twice; None if it is held."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield descriptor
    except BlockingIOError:
        yield None
    finally:
        os.close(descriptor)


def environment(place: int, study: Study) -> dict[str, str]:
    """Variables of the processes on one of ``study.jobs`` places: its share of the cores and of the GPUs."""
    variables = {name: value for name, value in os.environ.items() if name not in _LAUNCHED}
    devices = _devices(variables)
    if devices:
        share = max(1, len(devices) // study.jobs)
        start = place * share % len(devices)
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(devices[start : start + share])
    threads = len(os.sched_getaffinity(0)) // (study.jobs * (study.processes or 1))
    variables.setdefault("OMP_NUM_THREADS", str(max(1, threads)))
    return variables


def _devices(variables: dict[str, str]) -> list[str]:
    """GPUs that a process with these variables would see."""
    if variables.get("DS_ACCELERATOR") == "cpu" or not torch.cuda.is_available():
        return []
    named = variables.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(number) for number in range(torch.cuda.device_count())]


def parameters(folder: Path) -> int:
    """Numbers in all safetensors files of an exported folder, from their headers."""
    total = 0
    for path in folder.rglob("*.safetensors"):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        total += sum(prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    return total


def _duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{seconds:.0f} s"
