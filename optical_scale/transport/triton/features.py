"""Features as the kernels read them: in the precision they came in, with one float32 factor per token.

A cosine formed from rounded unit vectors would carry bfloat16's rounding into the kernel, magnified by 1 / epsilon.
Products of the raw bfloat16 values are exact in the tensor cores' float32 accumulators, so the norms are divided out
afterwards, and half-precision input costs no accuracy at all.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from optical_scale.transport.problem import TransportProblem


class Features(NamedTuple):
    """``p_i = factor_i values_i``: contiguous (B, T, D) values, bfloat16 or float32, and float32 factors (B, T)."""

    values_BTD: Tensor
    factor_BT: Tensor


def prepare(problem: TransportProblem) -> tuple[Features, Features]:
    """Features of both sides; tokens without mass are zero.

    bfloat16 vectors stay bfloat16, multiplied by powers of two that bring their largest entry to one: exact, and every
    norm stays in range. Other vectors are the geometry's own float32 features.
    """
    geometry = problem.geometry
    if geometry.raw is None or geometry.raw[0].dtype != torch.bfloat16 or geometry.raw[1].dtype != torch.bfloat16:
        plain = [Features(p.contiguous(), p.new_ones(p.shape[:2])) for p in (geometry.p_BND, geometry.q_BMD)]
        return plain[0], plain[1]
    x_BND, y_BMD = geometry.raw
    unit = geometry.unit_length
    return _scaled(x_BND, problem.a_BN, unit=unit), _scaled(y_BMD, problem.b_BM, unit=unit)


def _scaled(raw_BTD: Tensor, mass_BT: Tensor, *, unit: bool) -> Features:
    # A fill, not a product: padding may hold NaN.
    values_BTD = raw_BTD.masked_fill((mass_BT == 0).unsqueeze(-1), 0.0).contiguous()
    largest_BT1 = torch.maximum(values_BTD.amax(-1, keepdim=True), -values_BTD.amin(-1, keepdim=True))
    _, exponent_BT1 = torch.frexp(largest_BT1.float())
    exponent_BT1 = exponent_BT1.clamp(-125, 125).float()
    values_BTD.mul_(torch.exp2(-exponent_BT1).to(values_BTD.dtype))
    if not unit:
        return Features(values_BTD, torch.exp2(exponent_BT1).squeeze(-1))
    norm_BT = torch.linalg.vector_norm(values_BTD, dim=-1, dtype=torch.float32)
    is_zero_BT = norm_BT == 0
    return Features(values_BTD, norm_BT.masked_fill(is_zero_BT, 1.0).reciprocal().masked_fill(is_zero_BT, 0.0))
