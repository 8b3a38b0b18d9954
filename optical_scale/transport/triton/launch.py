"""Block sizes and grids: which tier, how many programs, which tile."""

from dataclasses import dataclass
from typing import Literal

import torch

Tier = Literal["pairs", "stored", "tiles"]

# Elements of a pair's kernel that stay in the registers of one program without spilling.
PAIR_ELEMENTS = 128 * 128
# Columns that a sweep can hold in registers, row by row.
SWEEP_COLUMNS = 16_384
# A pair this short belongs to one program, even if its kernel is stored.
OWNED_TOKENS = 256
# Bytes of partial column sums that all panels may read again each iteration instead of a launch that adds them.
_REREAD_BYTES = 8 << 20
# The interpreter runs programs one after the other: enough of them to divide the work at all.
_PROCESSORS = 4


def processors(device: torch.device) -> int:
    """Multiprocessors of the device."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else _PROCESSORS


def workspace_limit(device: torch.device) -> int:
    """Bytes the stored tier may allocate: a tenth of the device's memory, at most 16 GiB."""
    if device.type != "cuda":
        return 1 << 30
    return min(torch.cuda.get_device_properties(device).total_memory // 10, 16 << 30)


def divide_up(count: int, size: int) -> int:
    """Blocks of a size that hold count."""
    return -(-count // size)


def power_of_two(count: int, *, least: int = 16, most: int = 1 << 30) -> int:
    """The smallest power of two that holds count, within bounds."""
    return max(least, min(most, 1 << max(0, count - 1).bit_length()))


@dataclass(frozen=True, slots=True)
class Tile:
    """A matrix tile: rows, columns, depth of one product, and how many warps work on it."""

    BN: int
    BM: int
    BK: int
    warps: int
    stages: int

    @classmethod
    def of(cls, dtype: torch.dtype, N: int, M: int, D: int) -> "Tile":
        """Tensor-core tiles for bfloat16, smaller ones for float32, whose products take registers instead."""
        if dtype == torch.bfloat16:
            return cls(
                power_of_two(N, most=128), power_of_two(M, most=128), power_of_two(D, most=64), warps=8, stages=3
            )
        return cls(power_of_two(N, most=64), power_of_two(M, most=64), power_of_two(D, most=32), warps=4, stages=2)


@dataclass(frozen=True, slots=True)
class SweepGrid:
    """How a sweep divides the rows of a pair: panels of ``rows``, ``R`` at a time, and whether panels add up.

    Attributes:
        panels: programs per pair; one program owns its pair and needs no other launch.
        rows: rows of one panel.
        R: rows in registers at once.
        BM: columns in registers.
        warps: warps per program.
        merged: whether a launch adds the panels' column sums, instead of every panel adding all of them.
    """

    panels: int
    rows: int
    R: int
    BM: int
    warps: int
    merged: bool

    @classmethod
    def of(cls, device: torch.device, B: int, N: int, M: int, *, owned: bool) -> "SweepGrid":
        """One panel per pair if owned or pairs fill the device, else as many as give every multiprocessor one."""
        available = processors(device)
        panels = 1 if owned or available <= 2 * B else min(N, max(1, available // B))
        BM = power_of_two(M)
        R = max(1, min(power_of_two(divide_up(N, panels), least=1), (1 << 14) // BM))
        warps = 4 if BM * R <= 1 << 11 else 8 if BM * R <= 1 << 13 else 16
        rows = divide_up(divide_up(N, panels), R) * R
        panels = divide_up(N, rows)
        merged = panels > 1 and B * panels * panels * M * 4 > _REREAD_BYTES
        return cls(panels, rows, R, BM, warps, merged)


def column_parts(device: torch.device, programs: int, columns: int, BM: int) -> tuple[int, int]:
    """Into how many parts to split a sum over columns so that ``programs`` fill the device, and columns per part."""
    blocks = divide_up(columns, BM)
    parts = min(blocks, 8, divide_up(processors(device), programs))
    span = divide_up(blocks, parts) * BM
    return divide_up(columns, span), span


@dataclass(frozen=True, slots=True)
class FusedLaunch:
    """Blocks of the launch that does all of a short pair; see :data:`FUSED`."""

    BN: int
    BM: int
    BK: int
    warps: int
    stages: int

    @classmethod
    def of(cls, dtype: torch.dtype, N: int, M: int, D: int) -> "FusedLaunch":
        """The row of the table for pairs of at most N x M tokens."""
        BN, BM = power_of_two(N), power_of_two(M)
        half = dtype != torch.float32
        warps, depth = next(row[1:] for row in FUSED[half] if row[0] >= BN * BM)
        return cls(BN, BM, power_of_two(D, most=depth), warps, stages=2)

    @property
    def blocks(self) -> dict[str, int]:
        """As the kernel's compile-time arguments."""
        return {"BN": self.BN, "BM": self.BM, "BK": self.BK}


# Elements of a pair at most, warps, and the depth of one product; by whether vectors are in half precision.
# A program's registers: 65,536 on a multiprocessor, at most 255 a thread. The kernel matrix alone takes
#   64 x 64   at 4 warps (128 threads)    4,096 / 128 =  32 registers a thread,
#   128 x 128 at 8 warps (256 threads)   16,384 / 256 =  64, twice that while plan and cosines exist side by side,
# and 8 warps of at most 255 are 65,280: one such program per multiprocessor, as four to eight of the first.
# Shared memory, of 227 KiB a block: stages x (BN + BM) x BK elements of vectors, 2 x 256 x 64 x 2 bytes = 64 KiB for
# the largest half-precision pair, 2 x 256 x 32 x 4 = 64 KiB in float32; the transposed plan adds BN x BM x 4 = 64 KiB.
FUSED: dict[bool, tuple[tuple[int, int, int], ...]] = {
    True: ((32 * 32, 2, 64), (64 * 64, 4, 64), (PAIR_ELEMENTS, 8, 64)),
    False: ((32 * 32, 2, 32), (64 * 64, 4, 32), (PAIR_ELEMENTS, 8, 16)),
}
