"""Pooled mean squared error, the multilingual distillation of Reimers and Gurevych (2020, arXiv 2004.09813)."""

from optical_scale.batch import TokenStates
from optical_scale.losses.objective import LossOutput


class PooledMSE:
    """Squared Euclidean distance of the unit-length dense embeddings, 2 - 2 cos, in [0, 4]."""

    def __call__(self, teacher: TokenStates, student: TokenStates) -> LossOutput:
        """Loss of one micro-batch; masks of both sides only enter the means."""
        distance_B = (teacher.pooled() - student.pooled()).square().sum(-1)
        return LossOutput(distance_B.sum(), len(student), {})
