"""Pooled mean squared error, the multilingual distillation of Reimers and Gurevych (2020, arXiv 2004.09813)."""

from optical_scale.batch import TokenStates
from optical_scale.losses.objective import LossOutput
from optical_scale.losses.weights import Weighting, embeddings


class PooledMSE:
    """Squared Euclidean distance of the unit-length dense embeddings, 2 - 2 cos, in [0, 4].

    Args:
        token_weights: what a token counts in the means that are compared.
    """

    def __init__(self, token_weights: Weighting = "uniform") -> None:
        self.token_weights: Weighting = token_weights

    def __call__(self, teacher: TokenStates, student: TokenStates) -> LossOutput:
        """Loss of one micro-batch; masks of both sides only enter the means."""
        t_BD, s_BD = (embeddings(states, self.token_weights) for states in (teacher, student))
        distance_B = (t_BD - s_BD).square().sum(-1)
        return LossOutput(distance_B.sum(), len(student), {})
