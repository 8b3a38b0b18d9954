"""Operators that recompute costs in row panels: no N x M tensor, memory O((N + M) D).

A row's scaling is known as soon as its panel is complete, so the same panel feeds the column sums: one matrix product
per full iteration instead of two. Panels live in buffers allocated once; pairs are visited one after the other, because
this backend is for pairs that are large on their own.

The rows may be a share of longer sequences whose other rows live on other ranks. All that crosses between ranks are the
column sums of each iteration, and in the log domain the maxima they are relative to.
"""

import torch
import torch.distributed as dist
from torch import Tensor

from optical_scale.transport import native
from optical_scale.transport.operators import (
    PlanProduct,
    column_potential,
    column_scaling,
    relaxed_potential,
    relaxed_scaling,
    row_potential,
    row_scaling,
    scaling,
)
from optical_scale.transport.problem import TransportProblem

# Elements of one panel: 1 MiB in float32, a compromise between cache and the efficiency of the matrix product, which
# repacks the columns for every panel and wants rows to repay it.
_PANEL = 1 << 18
_LEAST_ROWS = 64
# Columns whose sums P^T values are collected together, so that the sums stay in cache while the rows pass by.
_COLUMNS = 1 << 12


class Blockwise:
    """Sinkhorn by row panels, in the exponential domain (bounded costs, moderate epsilon) or the log domain."""

    def __init__(
        self,
        problem: TransportProblem,
        *,
        log_domain: bool,
        relaxation: float = 1.0,
        panel_rows: int | None = None,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        """Allocate the panel buffers.

        Args:
            problem: the batch of problems; with a group, this rank's rows of it and all columns.
            log_domain: iterate on potentials with a running column maximum instead of on scalings.
            relaxation: over-relaxation, one for none.
            panel_rows: rows per panel; None chooses them from the number of columns.
            group: ranks that hold the other rows; None when all rows are here.
        """
        assert log_domain or problem.geometry.plain, "additive terms need the log domain"
        self.problem = problem
        M = problem.b_BM.shape[1]
        rows = min(problem.a_BN.shape[1], panel_rows or max(_LEAST_ROWS, _PANEL // M))
        self._rows, self._log_domain, self._relaxation, self._group = rows, log_domain, relaxation, group
        self._last: tuple[Tensor, Tensor, Tensor, Tensor] | None = None
        self._panel_RM = problem.b_BM.new_empty(rows, M)
        self._work_RM = problem.b_BM.new_empty(rows, M) if log_domain else self._panel_RM
        compiled = not log_domain and problem.transported_B1 is None and native.usable(self._panel_RM)
        self._columns = native.Columns(M) if compiled else None

    def iterate(self, g_BM: Tensor, count: int, f_BN: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :class:`~optical_scale.transport.operators.Operators`."""
        new_f_BN, new_g_BM = torch.zeros_like(self.problem.a_BN), torch.zeros_like(self.problem.b_BM)
        u_BN, v_BM = torch.zeros_like(new_f_BN), torch.zeros_like(new_g_BM)
        for pair in range(len(g_BM)):
            part = slice(pair, pair + 1)
            f_1N = None if f_BN is None or self._relaxation == 1.0 else f_BN[part]
            one = self.problem.pairs(part)
            if self._log_domain:
                new_f_BN[part], new_g_BM[part] = self._iterate_log(one, g_BM[part], f_1N, count)
                continue
            u_1N, v_1M = self._iterate_exp(one, g_BM[part], f_1N, count)
            new_f_BN[part] = one.geometry.constant + one.epsilon_B1 * (u_1N.log() - one.a_BN.log())
            new_g_BM[part] = one.epsilon_B1 * (v_1M.log() - one.b_BM.log())
            u_BN[part], v_BM[part] = u_1N, v_1M
        new_f_BN.masked_fill_(self.problem.a_BN == 0, 0.0)
        new_g_BM.masked_fill_(self.problem.b_BM == 0, 0.0)
        self._last = new_f_BN, new_g_BM, u_BN, v_BM
        return new_f_BN, new_g_BM

    def row_mass(self, f_BN: Tensor, g_BM: Tensor) -> Tensor:
        """See :class:`~optical_scale.transport.operators.Operators`."""
        return self.apply_plan(f_BN, g_BM, g_BM.new_empty(*g_BM.shape, 0), 1).mass_BN

    def apply_plan(self, f_BN: Tensor, g_BM: Tensor, values: Tensor, axis: int) -> PlanProduct:
        """See :class:`~optical_scale.transport.operators.Operators`; with a group, axis 0 sums over its ranks."""
        mass_BN = torch.zeros_like(f_BN)
        product = values.new_zeros(len(f_BN), f_BN.shape[1] if axis == 1 else g_BM.shape[1], values.shape[2])
        for pair in range(len(f_BN)):
            one = self.problem.pairs(slice(pair, pair + 1))
            u_N, v_M = self._weights(one, pair, f_BN, g_BM)
            for columns in self._column_blocks(whole=axis == 1):
                part = one.pairs(slice(None), columns)
                panel_rows = self._panel_RM.numel() // (columns.stop - columns.start)
                for rows in _blocks(f_BN.shape[1], min(f_BN.shape[1], panel_rows)):
                    plan_RC = self._plan(part, rows, u_N[rows], v_M[columns])
                    mass_BN[pair, rows] += plan_RC.sum(1)
                    if values.shape[2] == 0:
                        continue
                    if axis == 1:
                        torch.mm(plan_RC, values[pair], out=product[pair, rows])
                    else:
                        product[pair, columns].addmm_(plan_RC.t(), values[pair, rows])
        if axis == 0 and self._group is not None:
            dist.all_reduce(product, group=self._group)
        return PlanProduct(product, mass_BN)

    def _column_blocks(self, *, whole: bool) -> list[slice]:
        M = self._panel_RM.shape[1]
        return _blocks(M, M if whole else _COLUMNS)

    def _plan(self, part: TransportProblem, rows: slice, u_R: Tensor, v_C: Tensor) -> Tensor:
        """Some rows of the plan between one pair's tokens, in the panel buffer."""
        if self._log_domain:
            return self._log_kernel(part, rows).add_(u_R[:, None]).add_(v_C).exp_()
        return self._kernel(part, rows).mul_(u_R[:, None]).mul_(v_C)

    def _weights(self, one: TransportProblem, pair: int, f_BN: Tensor, g_BM: Tensor) -> tuple[Tensor, Tensor]:
        """What the kernel of one pair is multiplied by, rows and columns; logarithms in the log domain."""
        epsilon_1 = one.epsilon_B1[0]
        if self._log_domain:
            return f_BN[pair] / epsilon_1 + one.a_BN[0].log(), g_BM[pair] / epsilon_1 + one.b_BM[0].log()
        # Potentials are rounded to 6e-8, which 1 / epsilon magnifies; their scalings themselves are not.
        if self._last is not None and self._last[0] is f_BN and self._last[1] is g_BM:
            return self._last[2][pair], self._last[3][pair]
        u_N = one.a_BN[0] * torch.exp((f_BN[pair] - one.geometry.constant) / epsilon_1)
        return u_N, one.b_BM[0] * torch.exp(g_BM[pair] / epsilon_1)

    def _kernel(self, one: TransportProblem, rows: slice) -> Tensor:
        """``exp(scale <p, q> / epsilon)`` of some rows of one pair, in the panel buffer."""
        p_RD, q_DM = one.geometry.p_BND[0, rows], one.geometry.q_BMD[0].t()
        # Scaled after the product, as the compiled sweep does: both must round the kernel alike.
        K_RM = torch.mm(p_RD, q_DM, out=self._panel(one, rows))
        return K_RM.mul_(one.geometry.scale / one.epsilon_B1).exp_()

    def _panel(self, one: TransportProblem, rows: slice) -> Tensor:
        """The panel buffer in the shape of some rows."""
        R, M = rows.stop - rows.start, one.b_BM.shape[1]
        return self._panel_RM.view(-1)[: R * M].view(R, M)

    def _panels(self, N: int) -> list[slice]:
        return _blocks(N, self._rows)

    def _log_kernel(self, one: TransportProblem, rows: slice) -> Tensor:
        """``-C / epsilon`` of some rows of one pair, in the panel buffer."""
        return one.geometry.log_kernel(0, rows, one.epsilon_B1[0], self._panel(one, rows))

    def _iterate_exp(
        self, one: TransportProblem, g_1M: Tensor, f_1N: Tensor | None, count: int
    ) -> tuple[Tensor, Tensor]:
        """Scalings of one pair with K = exp(scale <p, q> / epsilon); the constant is absorbed in f."""
        constant, epsilon_11 = one.geometry.constant, one.epsilon_B1
        v_1M = one.b_BM * torch.exp(g_1M / epsilon_11)
        u_1N = torch.zeros_like(one.a_BN)
        if f_1N is not None:
            u_1N = one.a_BN * torch.exp((f_1N - constant) / epsilon_11)
        relaxed = f_1N is not None
        column_1M = torch.empty_like(v_1M)
        for step in range(count):
            self._sweep(one, u_1N, v_1M, column_1M, self._relaxation if relaxed else 1.0)
            if self._group is not None:
                dist.all_reduce(column_1M, group=self._group)
            relaxed = self._relaxation != 1.0
            v_1M = relaxed_scaling(
                column_scaling(column_1M, one, 0.0), v_1M, self._relaxation if step + 1 < count else 1.0
            )
        return u_1N, v_1M

    def _sweep(self, one: TransportProblem, u_1N: Tensor, v_1M: Tensor, column_1M: Tensor, relaxation: float) -> None:
        """Update u from v, leaving ``K^T u`` of these rows in ``column_1M``."""
        if self._columns is not None:
            self._sweep_compiled(one, u_1N, v_1M, column_1M, relaxation)
            return
        geometry = one.geometry
        column_1M.zero_()
        for rows in self._panels(u_1N.shape[1]):
            K_RM = self._kernel(one, rows)
            u_1R = row_scaling(torch.mv(K_RM, v_1M[0]).unsqueeze(0), one.rows(rows), geometry.constant)
            u_1N[:, rows] = relaxed_scaling(u_1R, u_1N[:, rows], relaxation)
            column_1M[0].addmv_(K_RM.t(), u_1N[0, rows])

    def _sweep_compiled(
        self, one: TransportProblem, u_1N: Tensor, v_1M: Tensor, column_1M: Tensor, relaxation: float
    ) -> None:
        """:meth:`_sweep` with everything after the matrix product in one compiled pass."""
        assert self._columns is not None
        geometry, q_DM = one.geometry, one.geometry.q_BMD[0].t()
        weight_1N = scaling(one.a_BN, torch.ones_like(u_1N), one, geometry.constant)
        power = 1.0 if one.damping is None else float(one.damping)
        exponent = float(geometry.scale / one.epsilon_B1)
        self._columns.start()
        for rows in self._panels(u_1N.shape[1]):
            panel_RM = torch.mm(geometry.p_BND[0, rows], q_DM, out=self._panel_RM[: rows.stop - rows.start])
            self._columns.sweep(panel_RM, weight_1N[0, rows], v_1M[0], u_1N[0, rows], power, relaxation, exponent)
        self._columns.total(column_1M[0])

    def _iterate_log(
        self, one: TransportProblem, g_1M: Tensor, f_1N: Tensor | None, count: int
    ) -> tuple[Tensor, Tensor]:
        """Iterations on one pair with a running maximum per column, as in online softmax."""
        epsilon_11 = one.epsilon_B1
        log_a_N, log_b_M = one.a_BN[0].log(), one.b_BM[0].log()
        relaxed, f_1N = f_1N is not None, torch.zeros_like(one.a_BN) if f_1N is None else f_1N.clone()
        lowest = torch.finfo(g_1M.dtype).min / 2
        for step in range(count):
            v_M = g_1M[0] / epsilon_11[0] + log_b_M
            # The finite start is only ever a maximum; it is subtracted, never added to a cost.
            top_M, sum_M = torch.full_like(v_M, lowest), torch.zeros_like(v_M)
            for rows in self._panels(f_1N.shape[1]):
                log_K_RM = self._log_kernel(one, rows)
                work_RM = torch.add(log_K_RM, v_M, out=self._work_RM[: rows.stop - rows.start])
                top_R1 = work_RM.amax(1, keepdim=True)
                log_sum_R = work_RM.sub_(top_R1).exp_().sum(1).log_().add_(top_R1[:, 0])
                next_f_1R = row_potential(log_sum_R.unsqueeze(0), one)
                previous_1R = f_1N[:, rows] if relaxed else None
                f_1N[:, rows] = relaxed_potential(next_f_1R, previous_1R, self._relaxation)
                log_K_RM.add_((f_1N[0, rows] / epsilon_11[0] + log_a_N[rows]).unsqueeze(1))
                new_top_M = torch.maximum(top_M, log_K_RM.amax(0))
                sum_M.mul_(torch.exp(top_M - new_top_M)).add_(log_K_RM.sub_(new_top_M).exp_().sum(0))
                top_M = new_top_M
            top_M, sum_M = self._over_ranks(top_M, sum_M)
            relaxed = self._relaxation != 1.0
            next_g_1M = column_potential((top_M + sum_M.log()).unsqueeze(0), one)
            g_1M = relaxed_potential(next_g_1M, g_1M, self._relaxation if step + 1 < count else 1.0)
        return f_1N, g_1M

    def _over_ranks(self, top_M: Tensor, sum_M: Tensor) -> tuple[Tensor, Tensor]:
        """Column maxima and the sums relative to them over all ranks, in one collective."""
        if self._group is None:
            return top_M, sum_M
        own_2M = torch.stack([top_M, sum_M])
        all_W2M = [torch.empty_like(own_2M) for _ in range(dist.get_world_size(self._group))]
        dist.all_gather(all_W2M, own_2M, group=self._group)
        tops_WM, sums_WM = torch.stack(all_W2M).unbind(1)
        top_M = tops_WM.amax(0)
        return top_M, (sums_WM * torch.exp(tops_WM - top_M)).sum(0)


def _blocks(size: int, step: int) -> list[slice]:
    return [slice(start, min(size, start + step)) for start in range(0, size, step)]
