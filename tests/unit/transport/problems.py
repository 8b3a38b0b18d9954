"""Random and adversarial transport problems shared by the transport tests."""

from typing import NamedTuple

import torch
from torch import Tensor


class Tokens(NamedTuple):
    """Padded token sets with NaN in the padding, so that reading it cannot go unnoticed."""

    x_BND: Tensor
    y_BMD: Tensor
    mask_x_BN: Tensor
    mask_y_BM: Tensor


def ragged_tokens(lengths_x: list[int], lengths_y: list[int], width: int = 8, seed: int = 0) -> Tokens:
    generator = torch.Generator().manual_seed(seed)
    B, N, M = len(lengths_x), max(lengths_x), max(lengths_y)
    mask_x_BN = torch.arange(N) < torch.tensor(lengths_x)[:, None]
    mask_y_BM = torch.arange(M) < torch.tensor(lengths_y)[:, None]
    x_BND = torch.randn(B, N, width, generator=generator)
    y_BMD = torch.randn(B, M, width, generator=generator)
    # Half of y resembles x, so plans are neither uniform nor a permutation.
    shared = min(N, M)
    y_BMD[:, :shared] += 1.5 * x_BND[:, :shared].flip(1)
    x_BND[~mask_x_BN] = float("nan")
    y_BMD[~mask_y_BM] = float("nan")
    return Tokens(x_BND, y_BMD, mask_x_BN, mask_y_BM)


def crop(tokens: Tokens, pair: int) -> tuple[Tensor, Tensor]:
    """One pair without its padding, with a batch dimension of one."""
    x, y, mask_x, mask_y = (t[pair] for t in tokens)
    return x[mask_x][None], y[mask_y][None]
