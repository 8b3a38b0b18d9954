"""Whether a disk can take what is offloaded to it, asked before anything is built."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from optical_scale.errors import EngineError


def require_space(disk: Path, needed: Mapping[str, int]) -> None:
    """Make a folder below ``disk`` for each side of a run, and see that its files fit.

    Args:
        disk: the folder that `engine.nvme` names.
        needed: bytes on this machine by side, student or teacher. Files of an earlier start are replaced, so their
            space counts as free.

    Raises:
        EngineError: it cannot be written, is on a file system without direct access, or has too little space.
    """
    field = f"{next(iter(needed))}.engine.nvme"
    try:
        free = 0
        for side in needed:
            (disk / side).mkdir(parents=True, exist_ok=True)
            free += sum(path.stat().st_size for path in (disk / side).rglob("*") if path.is_file())
        with tempfile.NamedTemporaryFile(dir=disk) as probe:
            os.close(os.open(probe.name, os.O_RDWR | os.O_DIRECT))  # as DeepSpeed opens its files
        free += shutil.disk_usage(disk).free
    except OSError as error:
        raise EngineError(
            f"{field}: {disk} cannot take offloaded files: {error.strerror or error}; name a folder on a local disk "
            "that this user may write to"
        ) from error
    if free < sum(needed.values()):
        raise EngineError(
            f"{field}: {disk} has {free / 2**30:,.2f} GiB of space, the run needs {sum(needed.values()) / 2**30:,.2f} "
            "GiB there; name a folder on a larger disk, start on more machines, or offload to `cpu`"
        )
