"""How much each token of a sentence counts: masses of transport, and weights of the baselines beside it."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from optical_scale.batch import TokenStates

Weighting = Literal["uniform", "norm", "attention", "idf"]

_SHARPNESS = 0.2
"""Divides the cosines before the softmax of "attention"; a cosine that is 0.5 higher is then worth e^2.5 = 12 times."""


def token_weights(states: TokenStates, kind: Weighting, mask_BT: Tensor) -> Tensor | None:
    """Shares of the tokens in ``mask_BT``, without gradient; they sum to one.

    Args:
        states: the token states.
        kind: "norm" in proportion to the length of a token's vector (as in Yokoi et al. 2020, arXiv 2004.15003), "idf"
            to its inverse document frequency (as in Zhao et al. 2019, arXiv 1909.02622), "attention" what a single head
            pays whose query is the sentence: a softmax of cosines with the mean of its tokens, "uniform" the same for
            all.
        mask_BT: bool, tokens that count.

    Returns:
        (B, T) float32, or float64 as the vectors; None where all tokens count the same: patches have no frequency.
    """
    x_BTD = states.x_BTD.detach()
    x_BTD = x_BTD if x_BTD.dtype == torch.float64 else x_BTD.float()
    if kind == "norm":
        weight_BT = torch.linalg.vector_norm(x_BTD, dim=-1)
    elif kind == "attention":
        # Filled first, because what padding holds must not reach the mean.
        unit_BTD = functional.normalize(x_BTD.masked_fill(~mask_BT.unsqueeze(-1), 0.0), dim=-1)
        query_BD1 = functional.normalize(unit_BTD.sum(1), dim=-1).unsqueeze(-1)
        weight_BT = ((unit_BTD @ query_BD1).squeeze(-1) / _SHARPNESS).exp()  # at most e^5, so no maximum to subtract
    elif kind == "idf" and states.idf_BT is not None:
        weight_BT = states.idf_BT.to(x_BTD)
    else:
        return None
    # A sentence of zero vectors has no preference among its tokens.
    weight_BT = weight_BT.masked_fill(~mask_BT, 0.0)
    weight_BT = torch.where(weight_BT.sum(1, keepdim=True) > 0, weight_BT, mask_BT.to(weight_BT))
    return weight_BT / weight_BT.sum(1, keepdim=True).clamp_min(torch.finfo(weight_BT.dtype).tiny)


def embeddings(states: TokenStates, kind: Weighting) -> Tensor:
    """Unit-length weighted means of the token vectors in float32, (B, D); the dense embeddings where uniform."""
    return states.pooled(token_weights(states, kind, states.attention_BT))


def query_tokens(states: TokenStates, kind: Weighting) -> tuple[Tensor, Tensor]:
    """Unit-length token vectors, (B, T, D), and what each counts in MaxSim, (B, T)."""
    weight_BT = token_weights(states, kind, states.mask_BT)
    return states.normalized(), states.mask_BT if weight_BT is None else weight_BT
