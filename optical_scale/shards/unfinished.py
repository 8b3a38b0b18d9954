"""A folder under way: what an interrupted conversion has done, until it is finished and appears under its name."""

import contextlib
import json
import logging
import os
import shutil
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from optical_scale.errors import ShardError
from optical_scale.runtime.files import lock_file, sync_folder, write_json

logger = logging.getLogger(__name__)

_SECONDS = 5.0
"""Between two checkpoints: what an interruption costs at most."""

_PIECE_BYTES = 1 << 20


class Unfinished:
    """Context manager around the hidden folder ``.{output}.unfinished``; holds it against other processes.

    After an error the folder stays if it has a checkpoint, and the next conversion with equal settings goes on from
    there. Otherwise it vanishes.

    Args:
        output: the folder that :meth:`appear` makes.
        settings: plain JSON values that decide about the bytes of the output.
        restart: forget what an earlier conversion did.

    Raises:
        ShardError: another process is at it, or the earlier conversion had other settings.
    """

    def __init__(self, output: Path, settings: Mapping[str, Any], restart: bool = False) -> None:
        self._output, self._settings, self._restart = output, json.loads(json.dumps(settings)), restart
        self.folder = output.absolute().with_name(f".{output.absolute().name}.unfinished")
        self.shards = self.folder / "shards"
        self._state_file = self.folder / "state.json"
        self._log_file = self.folder / "digests"
        self._new = array("Q")
        self._logged = 0
        self.state: dict[str, Any] | None = None
        """What the last checkpoint holds; None at the start."""

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(lock_file(self.folder / "lock"))
            except BlockingIOError:
                raise ShardError(
                    f"{self._output}: another conversion writes this folder; wait for it, or stop it"
                ) from None
            if self._restart or not self.shards.is_dir() or not self._state_file.exists():
                self._start()
            else:
                self.state = self._read_state()
                self._logged = self.state["digests"]
                os.truncate(self._log_file, self._logged * self._new.itemsize)
            self._saved = time.monotonic()
            self._lock = stack.pop_all()
        return self

    def _start(self) -> None:
        self._state_file.unlink(missing_ok=True)  # first: without it, the rest counts for nothing
        shutil.rmtree(self.shards, ignore_errors=True)
        self.shards.mkdir()
        self._log_file.write_bytes(b"")

    def _read_state(self) -> dict[str, Any]:
        found = json.loads(self._state_file.read_text(encoding="utf-8"))
        differing = list(_differences(found["settings"], self._settings))
        if differing:
            raise ShardError(
                f"{self._output}: an interrupted conversion lies in {self.folder}, with other settings: "
                f"{'; '.join(differing[:5])}{' …' if len(differing) > 5 else ''}. Take its settings to go on, or start "
                "over with `--restart`"
            )
        return dict(found)

    def digests(self) -> Iterator[int]:
        """The digests remembered up to the last checkpoint."""
        with self._log_file.open("rb") as log:
            while piece := log.read(_PIECE_BYTES):
                yield from array("Q", piece)

    def remember(self, digests: Iterable[int]) -> None:
        """Keep digests for :meth:`digests`."""
        self._new.extend(digests)

    def save_if_due(self, state: Callable[[], Mapping[str, Any]]) -> None:
        """Every few seconds, make a checkpoint of ``state()``, which brings to disk what it speaks of."""
        if time.monotonic() - self._saved < _SECONDS:
            return
        with self._log_file.open("ab") as log:
            self._new.tofile(log)
            log.flush()
            os.fsync(log.fileno())
        self._logged += len(self._new)
        del self._new[:]
        write_json(self._state_file, {"settings": self._settings, "digests": self._logged, **state()})
        self._saved = time.monotonic()

    def appear(self) -> None:
        """Make the shards the output folder."""
        if self._output.is_dir():
            self._output.rmdir()
        self.shards.replace(self._output)
        sync_folder(self._output.absolute().parent)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        worth = error is not None and self._state_file.exists() and any(self.shards.iterdir())
        if not worth:
            shutil.rmtree(self.folder, ignore_errors=True)
        else:
            logger.warning("%s: interrupted; the same command goes on from what lies in %s", self._output, self.folder)
        self._lock.close()


def _differences(old: Any, new: Any, where: str = "") -> Iterable[str]:
    """``path was a, is b`` for each value that differs."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted({*old, *new}):
            yield from _differences(old.get(name), new.get(name), f"{where}.{name}" if where else name)
    elif old != new:
        yield f"{where} was {json.dumps(old, ensure_ascii=False)}, is {json.dumps(new, ensure_ascii=False)}"
