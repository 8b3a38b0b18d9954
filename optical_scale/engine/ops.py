"""DeepSpeed's compiled ops that a run may load: communication through shared memory, and reading and writing files.

DeepSpeed 0.19 compiles the first (25 to 90 s, once per machine) when a process joins a group on CPUs, and fails there
without a C++ compiler. Only its tensor-parallel inference layers call the op. Training exchanges through gloo, and was
measured to give the same losses at the same speed without it, so a machine without a compiler trains as well.
Offloading to `nvme` cannot do without the other one, which needs libaio besides.
"""

import logging
import os
import shutil
import subprocess
import sysconfig
import time
from pathlib import Path
from typing import Any, NamedTuple

from optical_scale.errors import EngineError
from optical_scale.runtime.files import lock_file

logger = logging.getLogger(__name__)

COMMUNICATION = "deepspeed_shm_comm"
FILES = "async_io"
_PINNED = "pin_memory"
"""What the op for files is linked with, compiled on its own."""
_BUILD_TIMES = {COMMUNICATION: "25 to 90 s", _PINNED: "about a minute", FILES: "some minutes"}
_OURS = "optical_scale.lock"
_ABANDONED = 120.0
INSTALL_HINT = "install it with `apt-get install g++`, or `conda install gxx_linux-64` without root"


class OpState(NamedTuple):
    """The op's cache: its folder, whether a built library is in it, and the lock that a build holds."""

    folder: Path
    built: bool
    locked: bool


def compiler() -> str | None:
    """Path of the C++ compiler that torch's extension builder will call, None if there is none."""
    words = os.environ.get("CXX", "c++").split() or ["c++"]
    return shutil.which(words[0])


def ninja() -> str | None:
    """Path of ninja, None if there is none.

    The one installed beside Python goes first on PATH, as an activated environment and DeepSpeed's launcher have it:
    if processes of one run found different versions, each would discard the other's log and compile everything again.
    """
    scripts = sysconfig.get_path("scripts")
    if shutil.which("ninja", path=scripts) and not os.environ.get("PATH", "").startswith(scripts):
        os.environ["PATH"] = os.pathsep.join(filter(None, [scripts, os.environ.get("PATH")]))
    return shutil.which("ninja")


def missing_tools() -> list[str]:
    """What building the op lacks, each with its next step; empty if nothing."""
    missing = []
    if compiler() is None:
        named = os.environ.get("CXX")
        found = f"the compiler {named!r} that CXX names" if named else "a C++ compiler (c++)"
        missing.append(f"{found} is not on PATH: {INSTALL_HINT}")
    if ninja() is None:
        missing.append("ninja is not on PATH: install it with `pip install ninja`")
    return missing


def op_state(op: str = COMMUNICATION) -> OpState:
    """Where an op is cached and whether it is built.

    Raises:
        EngineError: the cache folder cannot be created.
    """
    from torch.utils.cpp_extension import _get_build_directory

    try:
        folder = Path(_get_build_directory(op, False))
    except OSError as error:
        raise EngineError(
            f"the cache of compiled ops cannot be created: {error}; set TORCH_EXTENSIONS_DIR to a writable folder"
        ) from error
    return OpState(folder, (folder / f"{op}.so").is_file(), (folder / "lock").exists())


def choose_accelerator() -> None:
    """Tell DeepSpeed to use the CPU where there is no GPU; left to itself it finds out the same with a warning."""
    import torch

    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")


def prebuild_ops() -> Path:
    """Compile the op for communication into the cache, or find it there, and load it once.

    Returns:
        The cache folder.

    Raises:
        EngineError: a tool is missing, or compilation or loading fails.
    """
    return _prebuild(COMMUNICATION)


def require_file_op() -> None:
    """Compile the op for offloading to files, or find it in the cache, and load it once.

    Raises:
        EngineError: a tool or libaio is missing, or compilation or loading fails.
    """
    if not (op_state(FILES).built or missing_tools() or _builder(FILES).is_compatible()):
        raise EngineError(
            "DeepSpeed's op async_io, which offloads to `nvme`, cannot be built: libaio and its headers are missing; "
            "install them with `apt-get install libaio-dev`, or offload to `cpu`"
        )
    _prebuild(_PINNED)
    _prebuild(FILES)


def _prebuild(op: str) -> Path:
    what = f"DeepSpeed's op {op}"
    if missing := missing_tools():
        raise EngineError(f"{what} cannot be built; {'; '.join(missing)}")
    builder = _builder(op)
    folder = op_state(op).folder
    started = time.perf_counter()
    try:
        with lock_file(folder / _OURS, wait=True):  # one of our processes at a time
            _clear_abandoned(folder / "lock")
            state = op_state(op)
            if not state.built:
                logger.info("compiling %s into %s (%s, only once)", what, folder, _BUILD_TIMES[op])
            builder.load(verbose=False)
    except _build_errors() as error:
        raise EngineError(
            f"{what} in {folder} does not build or load: {_last_line(error)}; "
            "delete that folder to build afresh, and check that Python's headers are installed (python3-dev) and, on a "
            "machine with GPUs, that CUDA_HOME names torch's version of the CUDA toolkit"
        ) from error
    if not state.built:
        logger.info("compiled in %.0f s", time.perf_counter() - started)
    return folder


def _build_errors() -> tuple[type[Exception], ...]:
    """What building or loading may raise; the last three where GPUs lack torch's version of the CUDA toolkit."""
    from deepspeed.ops.op_builder.builder import CUDAMismatchException, MissingCUDAException

    tools = (RuntimeError, ImportError, OSError, subprocess.SubprocessError)
    return *tools, CUDAMismatchException, MissingCUDAException, TypeError  # a path below CUDA_HOME, which is None


def _builder(op: str) -> Any:
    choose_accelerator()
    from deepspeed.ops import op_builder
    from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder

    known = {COMMUNICATION: ShareMemCommBuilder, _PINNED: op_builder.PinMemoryBuilder, FILES: op_builder.AsyncIOBuilder}
    return known[op]()


def _clear_abandoned(lock: Path, patience: float = _ABANDONED) -> None:
    """Remove the lock that a killed build left behind, for which torch would wait without end.

    The caller makes sure that none of our processes holds it. A build of another program changes files all the time.
    """
    told = False
    while lock.exists():
        newest = max(path.stat().st_mtime for path in lock.parent.iterdir() if path.name != _OURS)
        if time.time() - newest > patience:
            logger.warning("removing %s, which a killed build left behind", lock)
            lock.unlink(missing_ok=True)
        elif not told:
            told = True
            logger.info("waiting for the build that holds %s, at most %.0f s after its last change", lock, patience)
        time.sleep(0.2)


def require_communication_op() -> bool:
    """Make DeepSpeed start on CPUs: with the op where it can be built, else over gloo alone.

    Call before ``deepspeed.init_distributed``, in every process.

    Returns:
        True if the op is loaded, False if this process does without it.
    """
    try:
        prebuild_ops()
        return True
    except EngineError as error:
        if os.environ.get("RANK", "0") == "0":
            logger.warning("%s. Training goes on over gloo alone, at the same speed", error)
    choose_accelerator()
    import deepspeed

    deepspeed.ops.__compatible_ops__[COMMUNICATION] = False
    return False


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next(
        (line for line in lines if "error:" in line or "not found" in line), lines[-1] if lines else repr(error)
    )
