"""Which weights a folder holds, told in a second whatever their size."""

import hashlib
from pathlib import Path

_WEIGHTS = ("*.safetensors", "*.bin")
_SAMPLES, _SAMPLE = 64, 64 << 10


def weights_digest(folder: Path) -> str:
    """A hash of names, sizes and evenly spread samples of a folder's weight files, and of its ``config.json``.

    Samples of 64 KiB at 64 places: enough to tell one training from another, which changes nearly every block, without
    reading 20 GB at every start. It does not replace a checksum against corruption.
    """
    digest = hashlib.blake2b(digest_size=16)
    files = sorted({path for pattern in _WEIGHTS for path in folder.rglob(pattern)} | set(folder.rglob("config.json")))
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder).as_posix()}\0{size}\0".encode())
        with path.open("rb") as file:
            for start in sorted({max(0, (size - _SAMPLE) * i // (_SAMPLES - 1)) for i in range(_SAMPLES)}):
                file.seek(start)
                digest.update(file.read(_SAMPLE))
    return digest.hexdigest()
