"""Token-level mean squared error for two tokenizers: the transport plan says which teacher tokens are meant."""

from optical_scale.batch import TokenStates
from optical_scale.losses.objective import LossOutput
from optical_scale.transport import solve


class TokenMSE:
    """Mean over student tokens and dimensions of the squared distance to the token's share of the teacher.

    The target of student token j is ``sum_i P_ij t_i / sum_i P_ij``, the barycentre of the teacher's vectors under the
    plan between the two sides (cosine cost, uniform masses). Vectors are compared as they are, so lengths are learned
    too: on unit vectors the gradient would be that of transport itself. The target carries no gradient.

    Args:
        epsilon: entropic regularisation in units of the cosine distance.
        iterations: Sinkhorn iterations.
    """

    def __init__(self, epsilon: float = 0.02, iterations: int = 20) -> None:
        self.epsilon = epsilon
        self.iterations = iterations

    def __call__(self, teacher: TokenStates, student: TokenStates) -> LossOutput:
        """Loss of one micro-batch, with the marginal error and the effective matches per token as metrics."""
        # The student's tokens are the rows: their barycentres are what is wanted.
        plan = solve(
            student.x_BTD.detach(),
            teacher.x_BTD.detach(),
            student.mask_BT,
            teacher.mask_BT,
            epsilon=self.epsilon,
            iterations=self.iterations,
        )
        x_BND = teacher.x_BTD.detach().masked_fill(~teacher.mask_BT.unsqueeze(-1), 0.0)
        target_BMD = plan.barycentric(x_BND)
        error_BM = (student.x_BTD.to(target_BMD.dtype) - target_BMD).square().mean(-1)
        loss_B = error_BM.masked_fill(~student.mask_BT, 0.0).sum(1) / student.mask_BT.sum(1).clamp_min(1)
        metrics = {
            "marginal_error": plan.marginal_error_B.sum(),
            "effective_matches": plan.effective_matches().sum(),
        }
        return LossOutput(loss_B.sum(), len(student), metrics)
