"""Problems for the kernels and a float64 solution of them, from the very values the kernels were given."""

import torch

from optical_scale.transport import solve
from tests.unit.transport.problems import Tokens, ragged_tokens

TIERS = ["triton_pairs", "triton_stored", "triton_tiles"]


def tokens(dtype=torch.float32, width=40):
    """Ragged, wider than one block of a product, and no length a multiple of anything."""
    batch = ragged_tokens([19, 5, 1], [7, 18, 3], width=width)
    return Tokens(batch.x_BND.to(dtype), batch.y_BMD.to(dtype), *batch[2:])


def exact(batch, **settings):
    """Potentials and more in float64, by the dense backend."""
    return solve(batch.x_BND.double(), batch.y_BMD.double(), *batch[2:], backend="dense", domain="log", **settings)


def distance(mine, theirs):
    """Relative to the norm of the second."""
    return ((mine.double() - theirs).norm() / theirs.norm()).item()
