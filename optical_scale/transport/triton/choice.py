"""Which tier a problem gets, and its operators; importable without Triton, which is imported when one is built."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from optical_scale.errors import TransportError
from optical_scale.transport.problem import TransportProblem
from optical_scale.transport.triton.launch import (
    OWNED_TOKENS,
    PAIR_ELEMENTS,
    Tier,
    power_of_two,
    processors,
    workspace_limit,
)
from optical_scale.transport.triton.short import DTYPES
from optical_scale.transport.triton.support import require, unavailable

if TYPE_CHECKING:
    from optical_scale.transport.triton.operators import TritonOperators


def choose_tier(problem: TransportProblem, backend: str, *, log_domain: bool) -> tuple[Tier, str]:
    """The tier and why.

    Args:
        problem: the batch.
        backend: "triton", or one of its tiers by name.
        log_domain: the stored matrix then holds logarithms, in float32.

    Raises:
        TransportError: the kernels cannot run here, or the forced tier cannot hold the pairs.
    """
    masses = problem.a_BN
    require(backend, masses.device, masses.dtype)
    (B, N), M = masses.shape, problem.b_BM.shape[1]
    in_registers = power_of_two(N) * power_of_two(M) <= PAIR_ELEMENTS
    if backend == "triton_pairs" and max(N, M) > OWNED_TOKENS:
        raise TransportError(
            f"backend 'triton_pairs' holds pairs up to {OWNED_TOKENS} x {OWNED_TOKENS} tokens, found {N} x {M}; "
            "use 'triton', 'triton_stored' or 'triton_tiles'"
        )
    if backend in ("triton_stored", "triton_tiles"):
        return ("stored" if backend == "triton_stored" else "tiles"), f"{backend} forced"
    if backend == "triton_pairs":
        return "pairs", f"{backend} forced"
    # A short pair that needs the cache is worth a whole program only if pairs alone can fill the device.
    if max(N, M) <= OWNED_TOKENS and (in_registers or processors(masses.device) <= 2 * B):
        where = "registers" if in_registers else "cache"
        return "pairs", f"{B} pairs of {N} x {M} stay in the {where} of one program each"
    half = problem.geometry.raw is not None and problem.geometry.raw[0].element_size() == 2 and not log_domain
    needed, limit = B * N * M * (2 if half else 4), workspace_limit(masses.device)
    size = f"the kernel of {B} pairs of {N} x {M} takes {needed / 2**20:.1f} MiB"
    if needed <= limit:
        return "stored", f"{size}, within {limit >> 20} MiB"
    return "tiles", f"{size}, above {limit >> 20} MiB, so its tiles are recomputed"


def fits_one_launch(x: Tensor, y: Tensor, longest: tuple[int, int] | None = None) -> bool:
    """Whether pairs of two tensors fit the registers of one program each, and the kernel can run on them.

    Args:
        x: (B, N, D), or packed (X, D) with ``longest`` given.
        y: (B, M, D) or (Y, D).
        longest: tokens of the longest sides.
    """
    if x.ndim != (3 if longest is None else 2) or y.ndim != x.ndim or y.dtype != x.dtype or x.dtype not in DTYPES:
        return False
    if unavailable(x.device, torch.float32) is not None:
        return False
    N, M = (x.shape[1], y.shape[1]) if longest is None else longest
    return max(N, M) <= OWNED_TOKENS and power_of_two(N) * power_of_two(M) <= PAIR_ELEMENTS


def build(problem: TransportProblem, tier: Tier, *, log_domain: bool) -> "TritonOperators":
    """The operators of a tier."""
    from optical_scale.transport.triton.operators import TritonOperators

    return TritonOperators(problem, tier, log_domain=log_domain)
