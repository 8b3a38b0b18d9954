"""Iterations on one large stored kernel, which read half of its bytes once the scalings hardly move.

Memory limits iterations on a kernel that no cache holds. Write ``K = H + L``, H the upper 16 bits of every float and L
the rest, ``0 <= L < 2^-7 K``. One iteration splits the kernel in place, and keeps for every row

    r_i = (K v)_i / (H v)_i

and the same for every column. Later ones form ``(K v')_i`` as ``r_i (H v')_i``. If no entry of v' / v differs from one
by more than d, that is wrong by at most 2^-7 d of itself: ``(K v')_i / (H v')_i`` is a mean of ``K_ij / H_ij``, numbers
in [1, 1 + 2^-7), whose weights have changed by factors within d of each other. With d = 2^-16 this is an ulp of
float32, less than the rounding of the sums. The last iteration reads whole floats, and so does every one if v wanders
off.
"""

import torch
from torch import Tensor

from optical_scale.transport.native import Columns, Mode

# Floats of a kernel that no cache holds; below, halves save nothing.
LARGE = 1 << 22
# How far scalings may move from where the kernel was split, and what share of it the step before may take: what is left
# of a sequence that converges with a factor of 0.88 per iteration is eight times its last step.
_SETTLED, _SHARE = 2.0**-16, 1 / 8
# Splitting and joining write the kernel twice, as much as four iterations save.
_WORTHWHILE = 8


def iterate_pair(
    K_NM: Tensor,
    weight_N: Tensor,
    weight_M: Tensor,
    u_N: Tensor,
    v_M: Tensor,
    power: float,
    relaxation: float,
    count: int,
    *,
    halves: bool,
) -> int:
    """Sinkhorn iterations of one pair whose rows are divided among threads.

    Args:
        K_NM: kernel; in between it is halves, at the end it is as before.
        weight_N: factor of each row's update, zero for rows without mass.
        weight_M: the same for columns.
        u_N: row scalings, overwritten; zero where there are none to relax from.
        v_M: column scalings, overwritten.
        power: exponent of the updates, one when balanced.
        relaxation: over-relaxation, one for none.
        count: full iterations.
        halves: whether the kernel may be split; its entries have to be normal floats.

    Returns:
        How many iterations read half of the kernel.
    """
    columns, column_M = Columns(len(v_M)), torch.empty_like(v_M)
    split, allowed = None, halves and relaxation == 1.0
    moved, cheap = float("inf"), 0
    for step in range(count):
        left = count - step
        columns.start()
        if split is not None:
            joins = left == 1 or not _distance(v_M, split.v_M) <= _SETTLED
            split.sweep(columns, u_N, v_M, column_M, Mode.JOIN if joins else Mode.HALVES)
            split, allowed, cheap = (None, False, cheap) if joins else (split, allowed, cheap + 1)
        elif allowed and moved <= _SHARE * _SETTLED and left > _WORTHWHILE:
            split = _Split(K_NM, weight_N, v_M.clone(), power)
            split.sweep(columns, u_N, v_M, column_M, Mode.SPLIT)
        else:
            columns.sweep(K_NM, weight_N, v_M, u_N, power, relaxation, 0.0)
            columns.total(column_M)
        next_M = weight_M / column_M if power == 1.0 else weight_M * column_M.pow(-power)
        if relaxation != 1.0 and left > 1:
            next_M = v_M.pow(1.0 - relaxation) * next_M.pow(relaxation)
        next_M.masked_fill_(weight_M == 0, 0.0)
        moved = _distance(next_M, v_M) if allowed else moved
        v_M.copy_(next_M)
    return cheap


class _Split:
    """A kernel as halves, with what makes products of the upper ones whole."""

    def __init__(self, K_NM: Tensor, weight_N: Tensor, v_M: Tensor, power: float) -> None:
        self.v_M = v_M
        self._K_NM, self._weight_N, self._power = K_NM, weight_N, power
        self._ratio_N, self._ratio_M = torch.empty_like(weight_N), torch.ones_like(v_M)

    def sweep(self, columns: Columns, u_N: Tensor, v_M: Tensor, column_M: Tensor, mode: Mode) -> None:
        """Update u and leave ``K^T u`` in ``column_M``."""
        columns.sweep_halves(self._K_NM, self._weight_N, v_M, u_N, self._ratio_N, self._power, mode)
        columns.total(column_M)
        if mode is Mode.SPLIT:
            torch.div(column_M, columns.upper_total(), out=self._ratio_M)
        elif mode is Mode.HALVES:
            column_M.mul_(self._ratio_M)


def _distance(new_M: Tensor, old_M: Tensor) -> float:
    """Largest relative change; NaN where it makes no sense."""
    return float((new_M / old_M - 1.0).abs().masked_fill_((new_M == 0) & (old_M == 0), 0.0).amax())
