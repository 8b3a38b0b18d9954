"""Costs of short pairs by one launch (see :mod:`.fused`), padded or packed, with the envelope gradient.

Importable without Triton, which is imported when a kernel is launched.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from optical_scale.transport.triton.launch import FusedLaunch
from optical_scale.transport.triton.support import interpreted

_LOG2_E = 1.4426950408889634
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class ShortPairs(NamedTuple):
    """Where the tokens of a batch are: padded (B, N) with optional masks, or packed (X,) with ends (B + 1,)."""

    B: int
    N: int
    M: int
    mask_x: Tensor | None = None
    mask_y: Tensor | None = None
    marginal_x: Tensor | None = None
    marginal_y: Tensor | None = None
    ends_x: Tensor | None = None
    ends_y: Tensor | None = None


@dataclass(frozen=True, slots=True)
class ShortCost:
    """What the launch reports: ``cost_B`` carries the gradient; potentials are laid out as tokens are."""

    cost_B: Tensor
    dual_cost_B: Tensor
    marginal_error_B: Tensor
    effective_matches_B: Tensor
    f: Tensor
    g: Tensor


def fused_cost(x: Tensor, y: Tensor, pairs: ShortPairs, *, epsilon: float, count: int, log_domain: bool) -> ShortCost:
    """Cosine transport cost of balanced short pairs.

    Nothing waits for the device and nothing is validated, so the call may be captured in a CUDA graph.

    Args:
        x: (B, N, D), or packed (X, D); float32, bfloat16 or float16, of one dtype with y.
        y: (B, M, D), or packed (Y, D).
        pairs: how many pairs of how many tokens at most, masks, masses, and ends of packed pairs.
        epsilon: entropic strength.
        count: iterations.
        log_domain: iterate with running maxima.

    Returns:
        Costs and diagnostics, float32.
    """
    settings = (_LOG2_E / epsilon, count, log_domain)
    return ShortCost(*_FusedCost.apply(x, y, pairs, settings))  # type: ignore[no-untyped-call]


class _FusedCost(torch.autograd.Function):
    """Saves finished gradients, as the envelope of every other backend does."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, y: Tensor, pairs: ShortPairs, settings: tuple[float, int, bool]
    ) -> tuple[Tensor, ...]:
        needs_x, needs_y = ctx.needs_input_grad[:2]  # type: ignore[attr-defined]
        report_4B, f, g, grad_x, grad_y = _launch(x, y, pairs, settings, needs_x=needs_x, needs_y=needs_y)
        cost_B, diagnostics = report_4B[0].clone(), (*report_4B[1:].unbind(0), f, g)
        ends_x, ends_y = pairs.ends_x, pairs.ends_y
        ctx.save_for_backward(grad_x, grad_y, ends_x, ends_y)  # type: ignore[arg-type]
        ctx.dtypes = (x.dtype, y.dtype)  # type: ignore[attr-defined]
        ctx.mark_non_differentiable(*diagnostics)
        return cost_B, *diagnostics

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_B: Tensor, *unused: Tensor) -> tuple[Tensor | None, ...]:
        grad_x, grad_y, *ends = ctx.saved_tensors  # type: ignore[attr-defined]
        scaled = [
            None if grad is None else (grad * _per_token(grad_B, grad, end)).to(dtype)
            for grad, end, dtype in zip((grad_x, grad_y), ends, ctx.dtypes, strict=True)  # type: ignore[attr-defined]
        ]
        return *scaled, None, None


def _per_token(grad_B: Tensor, grad: Tensor, ends: Tensor | None) -> Tensor:
    if ends is None:
        return grad_B.view(-1, 1, 1)
    # The output's size is known, so repeating does not wait for the device.
    return grad_B.repeat_interleave(ends.diff(), output_size=len(grad)).unsqueeze(1)


def _launch(
    x: Tensor, y: Tensor, pairs: ShortPairs, settings: tuple[float, int, bool], *, needs_x: bool, needs_y: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    from optical_scale.transport.triton.fused import fused_pairs

    unit, count, log_domain = settings
    B, N, M = pairs.B, pairs.N, pairs.M
    x, y = x.detach().contiguous(), y.detach().contiguous()
    report_4B = x.new_empty(4, B, dtype=torch.float32)
    f, g = (t.new_empty(t.shape[:-1], dtype=torch.float32) for t in (x, y))
    # Half precision by its range: float16 gradients underflow before the loss scale is applied.
    kept = torch.float32 if x.dtype == torch.float16 else x.dtype
    grad_x = torch.empty_like(x, dtype=kept) if needs_x else None
    grad_y = torch.empty_like(y, dtype=kept) if needs_y else None
    plan = FusedLaunch.of(x.dtype, N, M, x.shape[-1])
    mass_x, mass_y = (
        None if m is None else m.detach().to(x.device, torch.float32).contiguous()
        for m in (pairs.marginal_x, pairs.marginal_y)
    )
    mask_x, mask_y = (None if m is None else m.contiguous().view(torch.uint8) for m in (pairs.mask_x, pairs.mask_y))
    # Pointers that a kernel does not read are any tensor of the right type.
    fused_pairs[(B,)](
        x, y, f if mass_x is None else mass_x, g if mass_y is None else mass_y,
        f if mask_x is None else mask_x, g if mask_y is None else mask_y,
        f if pairs.ends_x is None else pairs.ends_x, g if pairs.ends_y is None else pairs.ends_y,
        f, g, report_4B, x if grad_x is None else grad_x, y if grad_y is None else grad_y,
        B, N, M, x.shape[-1], unit, count,
        PACKED=pairs.ends_x is not None, GIVEN_X=mass_x is not None, GIVEN_Y=mass_y is not None,
        MASKED_X=mask_x is not None, MASKED_Y=mask_y is not None, NEEDS_X=needs_x, NEEDS_Y=needs_y, LOG=log_domain,
        **plan.blocks, PRECISION="ieee", INTERPRETED=interpreted(),
        num_warps=plan.warps, num_stages=plan.stages,
    )  # fmt: skip
    return report_4B, f, g, grad_x, grad_y
