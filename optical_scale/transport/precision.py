"""Full single precision, whatever the surrounding training code switched on."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# The precision of products is a setting of the process: the first thread to enter saves it, the last restores it.
_LOCK = threading.Lock()
_INSIDE = 0
_BEFORE: list[str] = []


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Autocast and reduced-precision products off: the kernel magnifies every rounding of a cosine by 1 / epsilon."""
    _enter()
    try:
        with torch.autocast(device_type=device.type, enabled=False):
            yield
    finally:
        _leave()


def _enter() -> None:
    global _INSIDE
    with _LOCK:
        if _INSIDE == 0:
            _BEFORE[:] = [backend.fp32_precision for backend in _backends()]
            for backend in _backends():
                backend.fp32_precision = "ieee"
        _INSIDE += 1


def _leave() -> None:
    global _INSIDE
    with _LOCK:
        _INSIDE -= 1
        if _INSIDE == 0:
            for backend, precision in zip(_backends(), _BEFORE, strict=True):
                backend.fp32_precision = precision


def _backends() -> tuple:  # type: ignore[type-arg]
    return torch.backends.cuda.matmul, torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
