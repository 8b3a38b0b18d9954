"""Messages for people on standard error, metrics for programs as JSON lines."""

import contextlib
import json
import logging
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

Item = TypeVar("Item")


def configure(rank: int = 0, verbose: bool = False) -> None:
    """Set up logging once per process: rank 0 speaks at INFO, the others only of warnings, with their rank."""
    level = logging.DEBUG if verbose else logging.INFO if rank == 0 else logging.WARNING
    prefix = "" if rank == 0 else f"[rank {rank}] "
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(f"{prefix}%(message)s"))
    logger = logging.getLogger("optical_scale")
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False


def progress(items: Iterable[Item], what: str, total: int | None = None, unit: str = "it") -> Iterator[Item]:
    """Iterate with a bar of rate and time left; silent when standard error is no terminal, and on ranks > 0."""
    with bar(what, total, unit) as advance:
        for item in items:
            yield item
            advance(1, "")


@contextlib.contextmanager
def bar(what: str, total: int | None = None, unit: str = "it", done: int = 0) -> Iterator[Callable[[int, str], object]]:
    """The same bar for work that comes in pieces; messages appear above it.

    The block is given a function to report how much more is done, and a word about it.
    """
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    if not sys.stderr.isatty() or os.environ.get("RANK", "0") != "0":
        yield lambda number, note: None
        return
    with (
        logging_redirect_tqdm([logging.getLogger("optical_scale")]),
        tqdm(desc=what, total=total, unit=unit, initial=done, unit_scale=True, dynamic_ncols=True) as shown,
    ):

        def advance(number: int, note: str) -> None:
            shown.set_postfix_str(note, refresh=False)
            shown.update(number)

        yield advance


def _not_finite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


class MetricsFile:
    """Append-only JSON lines, one object per event, flushed at once so that a killed run loses nothing."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")

    def write(self, event: str, values: Mapping[str, Any]) -> None:
        """Append ``{"event": event, **values}``; numbers that are not finite become null, which every reader knows."""
        known = {name: None if _not_finite(value) else value for name, value in values.items()}
        self._file.write(json.dumps({"event": event, **known}, ensure_ascii=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
