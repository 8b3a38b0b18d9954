"""Checkpoints that are whole or invisible.

``checkpoints/step_000100/`` holds ``student/`` (DeepSpeed's shards), ``assets/`` (Hugging Face configuration,
tokenizer, contract), ``train_state.json``, ``stream.json``, ``config.yaml``, ``random_00000.pt`` per rank,
``reference.safetensors`` (embeddings of fixed inputs by the engine itself), ``files.json`` (sizes and hashes) and,
written last, ``COMPLETE``. ``checkpoints/best`` links to the best one, where the run selects one.
"""

import json
import logging
import os
import random
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from optical_scale.errors import CheckpointError
from optical_scale.runtime.collectives import barrier, broadcast_object
from optical_scale.runtime.files import sha256, sync_folder, write_atomic, write_json
from optical_scale.runtime.world import World

logger = logging.getLogger(__name__)

COMPLETE = "COMPLETE"
BEST = "best"
"""Link beside the checkpoints, to the one that the run's selection prefers."""


class CheckpointStore:
    """The checkpoints of one run folder.

    Args:
        folder: ``<run>/checkpoints``.
        world: this process among all; rank 0 decides and tidies.
        keep: newest checkpoints kept; step 0 and the best one are kept besides.
        asynchronous: :meth:`save` returns when all is written, and a thread of rank 0 flushes it to the disk, hashes
            it and lets it appear. One at a time: the next :meth:`save` waits.
    """

    def __init__(self, folder: Path, world: World, keep: int, *, asynchronous: bool = False) -> None:
        self.folder = folder
        self.world = world
        self.keep = keep
        self.asynchronous = asynchronous
        self._sealing: Future[None] | None = None

    def save(
        self,
        step: int,
        write_shards: Callable[[Path], None],
        write_rest: Callable[[Path], None],
        best: int | None = None,
    ) -> Path:
        """Write a checkpoint; all ranks enter together.

        Args:
            step: optimizer updates done.
            write_shards: called on every rank with the folder to write into.
            write_rest: called on rank 0 only, after all shards are there.
            best: step of the checkpoint to keep as the best one, this or an earlier one.
        """
        self.wait()
        target = self.folder / f"step_{step:06d}"
        temporary = self.folder / f".step_{step:06d}.tmp"
        if self.world.is_main:
            # Of this save, or of a run that was killed in one.
            for abandoned in self.folder.glob(".step_*.tmp"):
                shutil.rmtree(abandoned)
            temporary.mkdir(parents=True)
        barrier()
        write_shards(temporary)
        torch.save(_random_state(), temporary / f"random_{self.world.rank:05d}.pt")
        barrier()
        if self.world.is_main:
            write_rest(temporary)
            if self.asynchronous:
                self._sealing = ThreadPoolExecutor(1, "checkpoint").submit(self._seal, temporary, target, best)
            else:
                self._seal(temporary, target, best)
        barrier()
        return target

    def wait(self) -> None:
        """Until the last checkpoint has appeared.

        Raises:
            OSError: it could not; those before it are as they were.
        """
        sealing, self._sealing = self._sealing, None
        if sealing is not None:
            sealing.result()

    def _seal(self, temporary: Path, target: Path, best: int | None) -> None:
        files = sorted(path for path in temporary.rglob("*") if path.is_file())
        for path in files:
            with path.open("rb") as file:
                os.fsync(file.fileno())
        hashes = {
            str(path.relative_to(temporary)): {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in files
        }
        write_json(temporary / "files.json", hashes)
        write_atomic(temporary / COMPLETE, "")
        shutil.rmtree(target, ignore_errors=True)
        temporary.replace(target)
        sync_folder(self.folder)
        self._retire(best)

    def _retire(self, best: int | None) -> None:
        chosen = None if best is None else f"step_{best:06d}"
        link = self.folder / BEST
        if chosen is not None:
            # Renamed over the old one, so that there is always a best checkpoint once there was one.
            fresh = self.folder / f".{BEST}.tmp"
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(chosen)
            fresh.replace(link)
        complete = [path for path in complete_checkpoints(self.folder) if path.name != "step_000000"]
        for path in complete[: -self.keep]:
            if path.name != chosen:
                # Under a name that the next save removes, should this be the last thing that the process does.
                shutil.rmtree(path.replace(self.folder / f".{path.name}.tmp"))
        if link.is_symlink() and not link.exists():
            link.unlink()

    def latest(self) -> Path | None:
        """The newest complete checkpoint, chosen by rank 0 for all.

        Raises:
            CheckpointError: on every rank, files of it are missing or have other sizes than when they were saved.
        """
        self.wait()
        found: tuple[Path | None, str] = (None, "")
        if self.world.is_main and (complete := complete_checkpoints(self.folder)):
            found = complete[-1], _damage(complete[-1])
        chosen: Path | None
        chosen, damage = broadcast_object(found)
        if damage:
            raise CheckpointError(
                f"{chosen} is damaged: {damage}; copy it again from where it is whole, or delete the folder to "
                "continue from the checkpoint before"
            )
        return chosen

    def restore_random_state(self, checkpoint: Path) -> None:
        """Continue every generator of this rank where it stood.

        On another number of ranks they start anew, so dropout goes on with other numbers.
        """
        if ranks_of(checkpoint) != self.world.size:
            return
        _set_random_state(torch.load(checkpoint / f"random_{self.world.rank:05d}.pt", weights_only=False))


def _damage(checkpoint: Path) -> str:
    """The first file that is not as large as it was when it was saved."""
    recorded = json.loads((checkpoint / "files.json").read_text(encoding="utf-8"))
    for name, facts in recorded.items():
        path = checkpoint / name
        size = path.stat().st_size if path.is_file() else None
        if size != facts["bytes"]:
            return (
                f"{name} is missing"
                if size is None
                else f"{name} has {size:,} bytes, was saved with {facts['bytes']:,}"
            )
    return ""


def ranks_of(checkpoint: Path) -> int:
    """How many ranks wrote a checkpoint."""
    return len(list(checkpoint.glob("random_*.pt")))


def complete_checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints below ``folder``, oldest first; others are named in a warning and ignored."""
    found = []
    # By number: names are equally long only up to step 999,999.
    for path in sorted(folder.glob("step_*"), key=lambda path: (len(path.name), path.name)):
        if (path / COMPLETE).exists():
            found.append(path)
        else:
            logger.warning("ignoring %s: it has no %s file, so it was not finished", path, COMPLETE)
    return found


def _random_state() -> dict[str, object]:
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def _set_random_state(state: dict[str, object]) -> None:
    random.setstate(state["python"])  # type: ignore[arg-type]
    np.random.set_state(state["numpy"])  # type: ignore[arg-type]
    torch.set_rng_state(state["torch"])  # type: ignore[arg-type]
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])  # type: ignore[arg-type]
