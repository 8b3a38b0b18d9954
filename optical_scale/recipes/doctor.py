"""What this machine offers to a run, and what to change where that is not enough."""

import importlib.metadata
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from optical_scale.engine.hosts import ask
from optical_scale.engine.leftovers import abandoned_buffers
from optical_scale.engine.ops import FILES, compiler, missing_tools, ninja, op_state, prebuild_ops, require_file_op
from optical_scale.errors import EngineError
from optical_scale.runtime.world import World

Verdict = Literal["ok", "warning", "problem"]

_LAUNCHER_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_GIB = 2**30


class Finding(NamedTuple):
    """One line of the examination: what, how it is, what was found, and what to do unless it is well."""

    what: str
    verdict: Verdict
    found: str
    fix: str = ""


def examine(
    *, build_ops: bool = False, hosts: Sequence[str] = (), dry_step: Callable[[], int] | None = None
) -> list[Finding]:
    """Look at everything a run needs.

    Args:
        build_ops: compile DeepSpeed's ops now instead of at the first run.
        hosts: machines that a run over ssh would use.
        dry_step: starts processes, each of which calls the recipe of that name, and returns their status.
    """
    return [
        _python(),
        *(
            _package(name, least)
            for name, least in (("torch", "2.11"), ("deepspeed", "0.19.8"), ("transformers", "5.17"))
        ),
        _devices(),
        *_toolchain(),
        _op(build_ops),
        *_file_op(build_ops),
        _memory(),
        _space("disk", Path.cwd(), 10 * _GIB, "free some, or set `run` and `output` to folders on another disk"),
        _shared_memory(),
        _launcher(),
        *_hosts(hosts),
        *([] if dry_step is None else [_dry_step(dry_step)]),
    ]


def usable(findings: list[Finding]) -> bool:
    """True if nothing found is a problem."""
    return all(finding.verdict != "problem" for finding in findings)


def _python() -> Finding:
    found = f"{platform.python_version()} at {sys.executable}"
    if (3, 11) <= sys.version_info[:2] <= (3, 12):
        return Finding("python", "ok", found)
    return Finding("python", "problem", found, "use Python 3.11 or 3.12")


def _package(name: str, least: str) -> Finding:
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, "problem", "not installed", f"pip install '{name}>={least}'")
    if _release(version) < _release(least):
        return Finding(name, "problem", version, f"pip install --upgrade '{name}>={least}'")
    return Finding(name, "ok", version)


def _release(version: str) -> tuple[int, ...]:
    """The numbers of a version, local and pre-release parts left out."""
    numbers = version.split("+")[0].split(".")
    return tuple(int(number) for number in numbers if number.isdecimal())


def _devices() -> Finding:
    import torch

    if torch.cuda.is_available():
        found = []
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            found.append(f"{torch.cuda.get_device_name(index)} ({free / _GIB:.0f} of {total / _GIB:.0f} GiB free)")
        return Finding("devices", "ok", ", ".join(found))
    cores = len(os.sched_getaffinity(0))
    if torch.version.cuda or torch.version.hip:
        fix = "torch has GPU support but sees no device: check the driver with nvidia-smi, and CUDA_VISIBLE_DEVICES"
        return Finding("devices", "warning", f"no GPU, {cores} CPU cores", fix)
    return Finding("devices", "ok", f"{cores} CPU cores; torch {torch.__version__} is built without GPU support")


def _toolchain() -> list[Finding]:
    # Training goes on without them, so their absence is a warning.
    missing = missing_tools()
    findings = []
    for what, path in (("compiler", compiler()), ("ninja", ninja())):
        fix = next((line.partition(": ")[2] for line in missing if (what in line)), "")
        findings.append(Finding(what, "ok" if path else "warning", path or "not found", "" if path else fix))
    return findings


def _op(build: bool) -> Finding:
    try:
        if build:
            prebuild_ops()
        state = op_state()
    except EngineError as error:
        # Asked for explicitly, so failing is failure; otherwise runs do without.
        return Finding("compiled op", "problem" if build else "warning", str(error), "see the message")
    if state.locked:
        fix = f"wait for the build that holds it, or delete {state.folder / 'lock'} if none is running"
        return Finding("compiled op", "warning", f"{state.folder} is locked", fix)
    if not state.built:
        fix = "the first CPU run compiles it (25 to 90 s); `optical-scale doctor --build-ops` does so now"
        return Finding("compiled op", "warning", f"not yet in {state.folder}", fix)
    return Finding("compiled op", "ok", str(state.folder))


def _file_op(build: bool) -> list[Finding]:
    try:
        state = op_state(FILES)
    except EngineError:  # told of the other op
        return []
    if build:
        try:
            require_file_op()
        except EngineError as error:  # few runs need it
            return [Finding("op for files", "warning", str(error), "only offload to `nvme` needs it")]
        return [Finding("op for files", "ok", str(state.folder))]
    rest = "not built; only offload to `nvme` needs it, and compiles it at the first run (some minutes, needs libaio)"
    return [Finding("op for files", "ok", str(state.folder) if state.built else rest)]


def _memory() -> Finding:
    lines = (line.split(":") for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
    values = {name: int(rest.split()[0]) * 1024 for name, rest in lines}
    free, total = values["MemAvailable"], values["MemTotal"]
    found = f"{free / _GIB:.1f} of {total / _GIB:.1f} GiB free"
    if free < 2 * _GIB:
        fix = "close other programs; one process needs about 1 GiB besides the models"
        return Finding("memory", "warning", found, fix)
    return Finding("memory", "ok", found)


def _space(what: str, folder: Path, least: int, fix: str) -> Finding:
    usage = shutil.disk_usage(folder)
    found = f"{usage.free / _GIB:.1f} of {usage.total / _GIB:.1f} GiB free at {folder}"
    return Finding(what, "ok", found) if usage.free >= least else Finding(what, "warning", found, fix)


def _shared_memory() -> Finding:
    folder = Path("/dev/shm")
    if not folder.is_dir():
        return Finding("shared memory", "warning", f"no {folder}", "set stream.workers to 0")
    if left := abandoned_buffers(folder):
        size = sum(path.stat().st_size for path in left)
        fix = "the next training on this machine's CPUs removes them"
        found = f"{len(left)} buffers of killed processes take {size / _GIB:.1f} GiB of {folder}"
        return Finding("shared memory", "warning", found, fix)
    fix = "in a container start it with --shm-size=8g (or --ipc=host); else set stream.workers to 0"
    return _space("shared memory", folder, _GIB, fix)


def _hosts(hosts: Sequence[str]) -> list[Finding]:
    fix = "check its name, ssh without a password, and that this folder, its Python and the packages are the same there"
    return [
        Finding(f"host {host}", "problem", problem, fix)
        if problem
        else Finding(
            f"host {host}", "ok", f"{', '.join(' '.join(known) for known in versions.items())}; reaches this one"
        )
        for host, (versions, problem) in (ask(hosts).items() if hosts else ())
    ]


def _dry_step(start: Callable[[], int]) -> Finding:
    began = time.perf_counter()
    if status := start():
        fix = "see the messages above; on several networks name the interface (GLOO_SOCKET_IFNAME, NCCL_SOCKET_IFNAME)"
        return Finding("dry step", "problem", f"ended with status {status}", fix)
    return Finding("dry step", "ok", f"processes started, exchanged and trained in {time.perf_counter() - began:.0f} s")


def _launcher() -> Finding:
    values = {name: os.environ[name] for name in _LAUNCHER_VARIABLES if name in os.environ}
    if not values:
        return Finding("launcher", "ok", "no variables set; `optical-scale train` starts its own processes")
    found = " ".join(f"{name}={value}" for name, value in values.items())
    if "WORLD_SIZE" not in values:
        fix = f"unset {' '.join(values)}, or start with a launcher that sets all of them"
        return Finding("launcher", "warning", f"{found}, but no WORLD_SIZE", fix)
    try:
        World.from_env()
    except (EngineError, ValueError) as error:
        return Finding("launcher", "problem", f"{found}: {error}", f"unset {' '.join(values)}")
    return Finding("launcher", "ok", found)
