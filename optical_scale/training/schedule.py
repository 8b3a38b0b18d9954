"""The learning-rate factor as a pure function of the update number."""

import math
from collections.abc import Callable
from typing import Literal

Decay = Literal["linear", "cosine", "constant"]


def learning_rate_factor(steps: int, warmup: float, decay: Decay) -> Callable[[int], float]:
    """Linear rise to 1 over ``warmup * steps`` updates, then ``decay`` to 0 at ``steps`` (constant stays at 1)."""
    rising = math.ceil(warmup * steps)

    def factor(update: int) -> float:
        if update < rising:
            return (update + 1) / rising
        left = max(0.0, (steps - update) / max(1, steps - rising))
        return {"linear": left, "cosine": 0.5 - 0.5 * math.cos(math.pi * left), "constant": 1.0}[decay]

    return factor
