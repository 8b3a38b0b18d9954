"""Operators that recompute costs in row panels: no N x M tensor, memory O((N + M) D).

A row's scaling is known as soon as its panel is complete, so the same panel feeds the column sums: one matrix product
per full iteration instead of two. Panels live in buffers allocated once; pairs are visited one after the other, because
this backend is for pairs that are large on their own.
"""

import torch
from torch import Tensor

from optical_scale.transport.operators import PlanProduct, damped, scaling
from optical_scale.transport.problem import TransportProblem

# Elements of one panel: 1 MiB in float32, a compromise between cache and the efficiency of the matrix product.
_PANEL = 1 << 18


class Blockwise:
    """Sinkhorn by row panels, in the exponential domain (bounded costs, moderate epsilon) or the log domain."""

    def __init__(self, problem: TransportProblem, *, log_domain: bool, panel_rows: int | None = None) -> None:
        """Allocate the panel buffers.

        Args:
            problem: the batch of problems.
            log_domain: iterate on potentials with a running column maximum instead of on scalings.
            panel_rows: rows per panel; None chooses them from the number of columns.
        """
        self.problem = problem
        M = problem.b_BM.shape[1]
        rows = min(problem.a_BN.shape[1], panel_rows or max(16, _PANEL // M))
        self._rows, self._log_domain = rows, log_domain
        self._panel_RM = problem.b_BM.new_empty(rows, M)
        self._work_RM = problem.b_BM.new_empty(rows, M) if log_domain else self._panel_RM

    def iterate(self, g_BM: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """See :class:`~optical_scale.transport.operators.Operators`."""
        f_BN, new_g_BM = torch.zeros_like(self.problem.a_BN), torch.zeros_like(self.problem.b_BM)
        for pair in range(len(g_BM)):
            one = self.problem.pairs(slice(pair, pair + 1))
            step = self._iterate_log if self._log_domain else self._iterate_exp
            f_BN[pair], new_g_BM[pair] = step(one, g_BM[pair : pair + 1], count)
        return f_BN.masked_fill_(self.problem.a_BN == 0, 0.0), new_g_BM.masked_fill_(self.problem.b_BM == 0, 0.0)

    def row_mass(self, f_BN: Tensor, g_BM: Tensor) -> Tensor:
        """See :class:`~optical_scale.transport.operators.Operators`."""
        return self.apply_plan(f_BN, g_BM, g_BM.new_empty(*g_BM.shape, 0), 1).mass_BN

    def apply_plan(self, f_BN: Tensor, g_BM: Tensor, values: Tensor, axis: int) -> PlanProduct:
        """See :class:`~optical_scale.transport.operators.Operators`."""
        B, N = f_BN.shape
        mass_BN = torch.empty_like(f_BN)
        product = values.new_zeros(B, N if axis == 1 else g_BM.shape[1], values.shape[2])
        for pair in range(B):
            one = self.problem.pairs(slice(pair, pair + 1))
            u_N = (f_BN[pair] / one.epsilon_B1[0] + one.a_BN[0].log()).unsqueeze(1)
            v_M = g_BM[pair] / one.epsilon_B1[0] + one.b_BM[0].log()
            scaled_DM = _scaled(one)
            for start in range(0, N, self._rows):
                rows = slice(start, min(N, start + self._rows))
                plan_RM = self._log_kernel(one, scaled_DM, rows).add_(u_N[rows]).add_(v_M).exp_()
                torch.sum(plan_RM, 1, out=mass_BN[pair, rows])
                if values.shape[2] == 0:
                    continue
                if axis == 1:
                    torch.mm(plan_RM, values[pair], out=product[pair, rows])
                else:
                    product[pair].addmm_(plan_RM.t(), values[pair, rows])
        return PlanProduct(product, mass_BN)

    def _log_kernel(self, one: TransportProblem, scaled_DM: Tensor, rows: slice) -> Tensor:
        """``-C / epsilon`` of some rows of one pair, in the panel buffer."""
        geometry, panel_RM = one.geometry, self._panel_RM[: rows.stop - rows.start]
        torch.mm(geometry.p_BND[0, rows], scaled_DM, out=panel_RM)
        if geometry.constant:
            panel_RM.sub_(geometry.constant / one.epsilon_B1[0])
        if geometry.row_BN is not None:
            panel_RM.sub_((geometry.row_BN[0, rows] / one.epsilon_B1[0]).unsqueeze(1))
        if geometry.column_BM is not None:
            panel_RM.sub_(geometry.column_BM[0] / one.epsilon_B1[0])
        return panel_RM

    def _iterate_exp(self, one: TransportProblem, g_1M: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Iterations on one pair with K = exp(scale <p, q> / epsilon); the constant is absorbed in f."""
        geometry, epsilon_11 = one.geometry, one.epsilon_B1
        assert geometry.column_BM is None, "additive terms need the log domain"
        scaled_DM = _scaled(one)
        v_1M = one.b_BM * torch.exp(g_1M / epsilon_11)
        row_1N, column_1M, u_1N = torch.empty_like(one.a_BN), torch.empty_like(v_1M), torch.empty_like(one.a_BN)
        N = row_1N.shape[1]
        for _ in range(count):
            column_1M.zero_()
            for start in range(0, N, self._rows):
                rows = slice(start, min(N, start + self._rows))
                K_RM = torch.mm(geometry.p_BND[0, rows], scaled_DM, out=self._panel_RM[: rows.stop - start]).exp_()
                torch.mv(K_RM, v_1M[0], out=row_1N[0, rows])
                u_1N[:, rows] = scaling(one.a_BN[:, rows], row_1N[:, rows], one, geometry.constant)
                column_1M[0].addmv_(K_RM.t(), u_1N[0, rows])
            v_1M = scaling(one.b_BM, column_1M, one, 0.0)
        f_1N = damped(geometry.constant - epsilon_11 * row_1N.log(), one)
        return f_1N[0], damped(-epsilon_11 * column_1M.log(), one)[0]

    def _iterate_log(self, one: TransportProblem, g_1M: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Iterations on one pair with a running maximum per column, as in online softmax."""
        epsilon_11, scaled_DM = one.epsilon_B1, _scaled(one)
        log_a_N, log_b_M = one.a_BN[0].log(), one.b_BM[0].log()
        f_1N, N = torch.zeros_like(one.a_BN), one.a_BN.shape[1]
        lowest = torch.finfo(g_1M.dtype).min / 2
        for _ in range(count):
            v_M = g_1M[0] / epsilon_11[0] + log_b_M
            # The finite start is only ever a maximum; it is subtracted, never added to a cost.
            top_M, sum_M = torch.full_like(v_M, lowest), torch.zeros_like(v_M)
            for start in range(0, N, self._rows):
                rows = slice(start, min(N, start + self._rows))
                log_K_RM = self._log_kernel(one, scaled_DM, rows)
                work_RM = torch.add(log_K_RM, v_M, out=self._work_RM[: rows.stop - start])
                top_R1 = work_RM.amax(1, keepdim=True)
                log_sum_R = work_RM.sub_(top_R1).exp_().sum(1).log_().add_(top_R1[:, 0])
                f_1N[:, rows] = damped(-epsilon_11 * log_sum_R, one)
                log_K_RM.add_((f_1N[0, rows] / epsilon_11[0] + log_a_N[rows]).unsqueeze(1))
                new_top_M = torch.maximum(top_M, log_K_RM.amax(0))
                sum_M.mul_(torch.exp(top_M - new_top_M)).add_(log_K_RM.sub_(new_top_M).exp_().sum(0))
                top_M = new_top_M
            g_1M = damped(-epsilon_11 * (top_M + sum_M.log()), one)
        return f_1N[0], g_1M[0]


def _scaled(one: TransportProblem) -> Tensor:
    """``scale q^T / epsilon`` of one pair, so that a panel's product needs no further pass."""
    return (one.geometry.q_BMD[0] * (one.geometry.scale / one.epsilon_B1[0])).t()
