"""Operators with a stored (B, N, M) array: the fastest choice for many short pairs.

:class:`DenseExp` stores the Gibbs kernel and iterates on scalings; :class:`DenseLog` stores ``-C / epsilon`` and
iterates on potentials, which no epsilon can overflow. Both start from g = 0 and agree at every iteration count.
"""

import torch
from torch import Tensor

from optical_scale.transport.operators import PlanProduct, damped, scaling
from optical_scale.transport.problem import TransportProblem

# Elements of the kernel iterated together on a CPU: 1 MiB in float32 stays near a core's second-level cache, which made
# the loop over 512 pairs of 64 x 64 1.6 times faster than sweeps over all of them.
_CPU_CHUNK = 1 << 18


class DenseExp:
    """Sinkhorn scalings on a stored kernel ``K_ij = exp((f0_i + g0_j - C_ij) / epsilon)``.

    Without ``shift``, f0 is the cost's constant and g0 zero. For the cosine cost that makes K = exp(cosine / epsilon),
    centred around one: epsilon 0.02 spans e^-50 .. e^50, well inside float32. With ``shift``, f0 is the smallest cost
    of each row and g0 the smallest remainder of each column, so every row and column of K has maximum one.
    """

    def __init__(self, problem: TransportProblem, *, shift: bool) -> None:
        self.problem = problem
        geometry, epsilon_B11 = problem.geometry, problem.epsilon_B1.unsqueeze(2)
        if shift:
            cost_BNM = geometry.cost()
            self._f0_BN, self._g0_BM = _offsets(cost_BNM, problem)
            exponent_BNM = cost_BNM.neg_().add_(self._f0_BN[:, :, None]).add_(self._g0_BM[:, None, :]).div_(epsilon_B11)
            # Rows without mass took no part in the column minima and may exceed zero; nothing else does.
            self._K_BNM = exponent_BNM.clamp_(max=0.0).exp_()
        else:
            self._f0_BN = torch.full_like(problem.a_BN, geometry.constant)
            self._g0_BM = torch.zeros_like(problem.b_BM)
            assert geometry.column_BM is None, "additive terms need the shifted kernel"
            inner_BNM = torch.bmm(geometry.p_BND, geometry.q_BMD.transpose(1, 2))
            self._K_BNM = inner_BNM.mul_(geometry.scale / epsilon_B11).exp_()

    def iterate(self, g_BM: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """See :class:`~optical_scale.transport.operators.Operators`."""
        problem = self.problem
        B, N, M = self._K_BNM.shape
        row_BN, column_BM = problem.a_BN.new_empty(B, N), problem.a_BN.new_empty(B, M)
        chunk = max(1, _CPU_CHUNK // (N * M)) if self._K_BNM.device.type == "cpu" else B
        for start in range(0, B, chunk):
            part = slice(start, start + chunk)
            self._iterate_part(part, g_BM[part], count, row_BN[part], column_BM[part])
        f_BN = damped(self._f0_BN - problem.epsilon_B1 * row_BN.log(), problem)
        g_BM = damped(self._g0_BM - problem.epsilon_B1 * column_BM.log(), problem)
        return f_BN.masked_fill(problem.a_BN == 0, 0.0), g_BM.masked_fill(problem.b_BM == 0, 0.0)

    def _iterate_part(self, part: slice, g_BM: Tensor, count: int, row_BN: Tensor, column_BM: Tensor) -> None:
        """Iterate on some pairs; leaves the last ``K v`` and ``K^T u`` in the two output tensors."""
        problem, K_BNM = self.problem.pairs(part), self._K_BNM[part]
        f0_BN, g0_BM = self._f0_BN[part], self._g0_BM[part]
        K_BMN = K_BNM.transpose(1, 2)
        row_B1N, column_B1M = row_BN.unsqueeze(1), column_BM.unsqueeze(1)
        v_BM = problem.b_BM * torch.exp((g_BM - g0_BM) / problem.epsilon_B1)
        for _ in range(count):
            # Row vector times matrix: a one-column right side takes two to four times as long from 24 tokens up.
            torch.bmm(v_BM.unsqueeze(1), K_BMN, out=row_B1N)
            u_BN = scaling(problem.a_BN, row_BN, problem, f0_BN)
            torch.bmm(u_BN.unsqueeze(1), K_BNM, out=column_B1M)
            v_BM = scaling(problem.b_BM, column_BM, problem, g0_BM)

    def plan(self, f_BN: Tensor, g_BM: Tensor) -> Tensor:
        """The (B, N, M) plan."""
        problem = self.problem
        u_BN = problem.a_BN * torch.exp((f_BN - self._f0_BN) / problem.epsilon_B1)
        v_BM = problem.b_BM * torch.exp((g_BM - self._g0_BM) / problem.epsilon_B1)
        return (self._K_BNM * u_BN[:, :, None]).mul_(v_BM[:, None, :])

    def row_mass(self, f_BN: Tensor, g_BM: Tensor) -> Tensor:
        """See :class:`~optical_scale.transport.operators.Operators`."""
        return self.plan(f_BN, g_BM).sum(2)

    def apply_plan(self, f_BN: Tensor, g_BM: Tensor, values: Tensor, axis: int) -> PlanProduct:
        """See :class:`~optical_scale.transport.operators.Operators`."""
        return _apply(self.plan(f_BN, g_BM), values, axis)


class DenseLog:
    """Sinkhorn potentials on a stored ``-C / epsilon``; out of place throughout, so autograd may record it."""

    def __init__(self, problem: TransportProblem) -> None:
        self.problem = problem
        self._log_K_BNM = problem.geometry.cost() / -problem.epsilon_B1.unsqueeze(2)
        # log 0 = -inf is exact: such entries vanish from every sum, whatever the scale of the others.
        self._log_a_BN, self._log_b_BM = problem.a_BN.log(), problem.b_BM.log()

    def iterate(self, g_BM: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """See :class:`~optical_scale.transport.operators.Operators`."""
        problem, epsilon_B1 = self.problem, self.problem.epsilon_B1
        f_BN = torch.zeros_like(problem.a_BN)
        for _ in range(count):
            v_B1M = (g_BM / epsilon_B1 + self._log_b_BM).unsqueeze(1)
            f_BN = damped(-epsilon_B1 * torch.logsumexp(self._log_K_BNM + v_B1M, 2), problem)
            u_BN1 = (f_BN / epsilon_B1 + self._log_a_BN).unsqueeze(2)
            g_BM = damped(-epsilon_B1 * torch.logsumexp(self._log_K_BNM + u_BN1, 1), problem)
        return f_BN.masked_fill(problem.a_BN == 0, 0.0), g_BM.masked_fill(problem.b_BM == 0, 0.0)

    def plan(self, f_BN: Tensor, g_BM: Tensor) -> Tensor:
        """The (B, N, M) plan."""
        u_BN = f_BN / self.problem.epsilon_B1 + self._log_a_BN
        v_BM = g_BM / self.problem.epsilon_B1 + self._log_b_BM
        return torch.exp(self._log_K_BNM + u_BN[:, :, None] + v_BM[:, None, :])

    def row_mass(self, f_BN: Tensor, g_BM: Tensor) -> Tensor:
        """See :class:`~optical_scale.transport.operators.Operators`."""
        return self.plan(f_BN, g_BM).sum(2)

    def apply_plan(self, f_BN: Tensor, g_BM: Tensor, values: Tensor, axis: int) -> PlanProduct:
        """See :class:`~optical_scale.transport.operators.Operators`."""
        return _apply(self.plan(f_BN, g_BM), values, axis)


def _apply(plan_BNM: Tensor, values: Tensor, axis: int) -> PlanProduct:
    left = plan_BNM if axis == 1 else plan_BNM.transpose(1, 2)
    return PlanProduct(torch.bmm(left, values), plan_BNM.sum(2))


def _offsets(cost_BNM: Tensor, problem: TransportProblem) -> tuple[Tensor, Tensor]:
    """Row minima over columns with mass, then column minima of the remainder over rows with mass."""
    infinity = float("inf")
    f0_BN = cost_BNM.masked_fill((problem.b_BM == 0)[:, None, :], infinity).amin(2)
    remainder_BNM = cost_BNM - f0_BN[:, :, None]
    g0_BM = remainder_BNM.masked_fill_((problem.a_BN == 0)[:, :, None], infinity).amin(1)
    return f0_BN, g0_BM
