"""Shared memory that killed processes leave behind: DeepSpeed's buffers, which nothing else ever removes."""

import logging
import os
import time
from pathlib import Path

logger = logging.getLogger(__name__)

SHARED_MEMORY = Path("/dev/shm")
_PATTERN = "deepspeed_allreduce_buffer_*"
_YOUNG = 60.0
"""Seconds during which a buffer may be there before its owner has mapped it."""


def abandoned_buffers(folder: Path = SHARED_MEMORY, young: float = _YOUNG) -> list[Path]:
    """DeepSpeed's buffers of this user, older than ``young`` seconds, that no process has mapped.

    A process of another user may hide what it maps, so buffers of others are never looked at.
    """
    found = [path for path in folder.glob(_PATTERN) if _is_old_and_ours(path, young)]
    if not found:
        return []
    mapped = _mapped_files()
    return sorted(path for path in found if str(path) not in mapped)


def remove_abandoned_buffers(folder: Path = SHARED_MEMORY, young: float = _YOUNG) -> None:
    """Delete what :func:`abandoned_buffers` finds, about 69 MB each, and say so."""
    found = abandoned_buffers(folder, young)
    size = sum(path.stat().st_size for path in found if path.exists())
    for path in found:
        path.unlink(missing_ok=True)
    if found:
        logger.info("removed %d buffers of killed processes from %s, %.0f MB", len(found), folder, size / 1e6)


def _is_old_and_ours(path: Path, young: float) -> bool:
    try:
        status = path.stat()
    except FileNotFoundError:
        return False
    return status.st_uid == os.getuid() and time.time() - status.st_mtime > young


def _mapped_files() -> set[str]:
    """Paths that any process of this user has mapped."""
    mapped: set[str] = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            lines = maps.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:  # it ended, or belongs to somebody else
            continue
        mapped.update(line.split(maxsplit=5)[-1] for line in lines if line.count(" ") >= 5)
    return mapped
