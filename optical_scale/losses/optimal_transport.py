"""OPTICAL's distillation loss (Huang, Yu and Allan, WSDM 2023, arXiv 2301.12566)."""

from optical_scale.batch import TokenStates
from optical_scale.losses.objective import LossOutput
from optical_scale.transport import sinkhorn_cost


class OptimalTransport:
    """<P, C> summed over pairs: C the cosine distance of teacher and student tokens, P the entropic transport plan.

    Both sides have uniform mass over the tokens of their mask. The gradient treats P as constant, which by Danskin's
    theorem is the exact gradient of the entropic transport value.

    Args:
        epsilon: entropic regularisation in units of the cosine distance.
        iterations: Sinkhorn iterations.
    """

    def __init__(self, epsilon: float = 0.02, iterations: int = 20) -> None:
        self.epsilon = epsilon
        self.iterations = iterations

    def __call__(self, teacher: TokenStates, student: TokenStates) -> LossOutput:
        """Loss of one micro-batch, with the marginal error and the effective matches per token as metrics."""
        result = sinkhorn_cost(
            teacher.x_BTD,
            student.x_BTD,
            teacher.mask_BT,
            student.mask_BT,
            epsilon=self.epsilon,
            iterations=self.iterations,
        )
        metrics = {
            "marginal_error": result.marginal_error_B.detach().sum(),
            "effective_matches": result.effective_matches_B.detach().sum(),
        }
        return LossOutput(result.cost_B.sum(), len(student), metrics)
