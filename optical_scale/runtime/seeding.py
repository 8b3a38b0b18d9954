"""Independent random streams derived from one seed, the same on every machine and Python version."""

import hashlib


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed that depends on ``seed`` and every word of ``purpose``, for example ``("order", "sw", epoch)``."""
    text = "\x1f".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1
