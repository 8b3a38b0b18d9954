"""Kernels compiled ahead of time for sm_90: no GPU is needed to know that they compile, and what they take of one."""

import pytest
import torch

from optical_scale.transport.triton import ahead
from optical_scale.transport.triton.launch import FusedLaunch, Tile

pytestmark = pytest.mark.skipif(not ahead.possible(), reason="Triton, its ptxas or its cuobjdump is not installed")
SHARED = 227 << 10
COMMON = {"PRECISION": "ieee", "INTERPRETED": False, "BALANCED": True}
POINTERS = {"active": "*i32", "mask_x": "*u8", "mask_y": "*u8", "ends_x": "*i64", "ends_y": "*i64", "unit": "fp32"}


def vectors(kind):
    return POINTERS | dict.fromkeys(("x", "y", "stored", "values"), kind)


@pytest.mark.parametrize(
    ("dtype", "T", "log", "stack"),
    [(torch.bfloat16, 64, False, 64), (torch.bfloat16, 128, False, 512), (torch.float16, 64, True, 64)],
)
def test_a_fused_pair_fits_a_multiprocessor(dtype, T, log, stack):
    from optical_scale.transport.triton import fused

    plan = FusedLaunch.of(dtype, T, T, 384)
    constants = COMMON | {
        **dict.fromkeys(("GIVEN_X", "GIVEN_Y", "NEEDS_X"), False),
        # Packed where the log domain is, padded with masks where it is not.
        "PACKED": log, "MASKED_X": not log, "MASKED_Y": not log, "NEEDS_Y": True,
        "LOG": log, "BN": plan.BN, "BM": plan.BM, "BK": plan.BK,
    }  # fmt: skip
    kind = "*bf16" if dtype == torch.bfloat16 else "*fp16"
    kept = "*bf16" if dtype == torch.bfloat16 else "*fp32"
    pointers = vectors(kind) | {"grad_x": kept, "grad_y": kept}
    usage = ahead.compile_kernel(fused.fused_pairs, constants, pointers, warps=plan.warps, stages=plan.stages)
    assert usage.shared <= SHARED
    assert usage.stack <= stack
    assert usage.atomics == 0
    assert usage.products != "fma"


@pytest.mark.parametrize("log", [False, True])
def test_the_long_tiers_fit_and_spill_next_to_nothing(log):
    from optical_scale.transport.triton import kernels

    tile = Tile.of(torch.bfloat16, 4096, 4096, 128)
    constants = COMMON | {"LOG": log, "BN": tile.BN, "BM": tile.BM, "BK": tile.BK, "PARTS": 4}
    constants |= {"STORED": False, "RESIDENT": False}
    pointers = vectors("*bf16") | ({"stored": "*fp32"} if log else {})
    for kernel in (kernels.half_step, kernels.build):
        usage = ahead.compile_kernel(kernel, constants, pointers, warps=tile.warps, stages=tile.stages)
        assert usage.shared <= SHARED
        assert usage.stack <= 64
        assert (usage.atomics, usage.products) == (0, "wgmma")
