"""Operators with a stored (B, N, M) array: the fastest choice wherever that array may exist.

:class:`DenseExp` stores the Gibbs kernel and iterates on scalings, with products batched over many short pairs;
:class:`Streamed` does the same pair by pair, reading each kernel once per iteration; :class:`DenseLog` stores
``-C / epsilon`` and iterates on potentials, which no epsilon can overflow. All agree at every iteration count.
"""

import torch
from torch import Tensor

from optical_scale.transport import native
from optical_scale.transport.halves import LARGE, iterate_pair
from optical_scale.transport.operators import (
    PlanProduct,
    column_potential,
    column_scaling,
    log_masses,
    relaxed_potential,
    relaxed_scaling,
    row_potential,
    row_scaling,
    scaling,
)
from optical_scale.transport.problem import TransportProblem

# Elements of the kernel iterated together on a CPU: 1 MiB in float32 stays near a core's second-level cache, which made
# the loop over 512 pairs of 64 x 64 1.6 times faster than sweeps over all of them.
_CPU_CHUNK = 1 << 18
# Elements of the kernel read twice in a row by PyTorch's own products: 2 MiB stay near a core, and smaller
# panels cost more in calls than a nearer cache saves.
_CPU_PANEL = 1 << 19
# Fewer rows do not repay a matrix product the repacking of its right side.
_LEAST_ROWS = 64


class DenseExp:
    """Sinkhorn scalings on a stored kernel ``K_ij = exp((f0_i + g0_j - C_ij) / epsilon)``.

    Without ``shift``, f0 is the cost's constant and g0 zero. For the cosine cost that makes K = exp(cosine / epsilon),
    centred around one: epsilon 0.02 spans e^-50 .. e^50, well inside float32. With ``shift``, f0 is the smallest cost
    of each row and g0 the smallest remainder of each column, so every row and column of K has maximum one.
    """

    def __init__(self, problem: TransportProblem, *, shift: bool, relaxation: float = 1.0) -> None:
        self.problem, self._shift, self._relaxation = problem, shift, relaxation
        self._last: tuple[Tensor, Tensor, Tensor, Tensor] | None = None
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
            assert geometry.plain, "additive terms need the shifted kernel"
            factor_B11, kept_BNM = geometry.scale / epsilon_B11, geometry.products_BNM
            self._K_BNM = (
                self._kernel(geometry.p_BND, geometry.q_BMD, factor_B11)
                if kept_BNM is None
                else (kept_BNM * factor_B11).exp_()
            )

    def _kernel(self, p_BND: Tensor, q_BMD: Tensor, factor_B11: Tensor) -> Tensor:
        """``exp(factor <p, q>)``, (B, N, M)."""
        return torch.bmm(p_BND, q_BMD.transpose(1, 2)).mul_(factor_B11).exp_()

    def iterate(self, g_BM: Tensor, count: int, f_BN: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :class:`~optical_scale.transport.operators.Operators`."""
        problem, epsilon_B1 = self.problem, self.problem.epsilon_B1
        u_BN = torch.zeros_like(problem.a_BN)
        if f_BN is not None and self._relaxation != 1.0:
            u_BN = problem.a_BN * torch.exp((f_BN - self._f0_BN) / epsilon_B1)
        v_BM = problem.b_BM * torch.exp((g_BM - self._g0_BM) / epsilon_B1)
        self._run(u_BN, v_BM, count)
        f_BN = self._f0_BN + epsilon_B1 * (u_BN.log() - problem.a_BN.log())
        g_BM = self._g0_BM + epsilon_B1 * (v_BM.log() - problem.b_BM.log())
        f_BN.masked_fill_(problem.a_BN == 0, 0.0)
        g_BM.masked_fill_(problem.b_BM == 0, 0.0)
        self._last = f_BN, g_BM, u_BN, v_BM
        return f_BN, g_BM

    def _run(self, u_BN: Tensor, v_BM: Tensor, count: int) -> None:
        """Iterate on both scalings in place; u of zero stands for none."""
        B, N, M = self._K_BNM.shape
        chunk = max(1, _CPU_CHUNK // (N * M)) if self._K_BNM.device.type == "cpu" else B
        for start in range(0, B, chunk):
            part = slice(start, start + chunk)
            self._run_part(part, u_BN[part], v_BM[part], count)

    def _run_part(self, part: slice, u_BN: Tensor, v_BM: Tensor, count: int) -> None:
        problem, K_BNM = self.problem.pairs(part), self._K_BNM[part]
        f0_BN, g0_BM = self._f0_BN[part], self._g0_BM[part]
        K_BMN = K_BNM.transpose(1, 2)
        row_B1N, column_B1M = K_BNM.new_empty(len(u_BN), 1, u_BN.shape[1]), torch.empty_like(v_BM).unsqueeze(1)
        v_now, u_now = v_BM, u_BN if bool(self._relaxation != 1.0 and u_BN.any()) else None
        for step in range(count):
            # Row vector times matrix: a one-column right side takes two to four times as long from 24 tokens up.
            torch.bmm(v_now.unsqueeze(1), K_BMN, out=row_B1N)
            u_now = relaxed_scaling(row_scaling(row_B1N[:, 0], problem, f0_BN), u_now, self._relaxation)
            torch.bmm(u_now.unsqueeze(1), K_BNM, out=column_B1M)
            mix = self._relaxation if step + 1 < count else 1.0
            v_now = relaxed_scaling(column_scaling(column_B1M[:, 0], problem, g0_BM), v_now, mix)
        assert u_now is not None
        u_BN.copy_(u_now)
        v_BM.copy_(v_now)

    def _scalings(self, f_BN: Tensor, g_BM: Tensor) -> tuple[Tensor, Tensor]:
        # Potentials are rounded to 6e-8, which 1 / epsilon magnifies; their scalings themselves are not.
        if self._last is not None and self._last[0] is f_BN and self._last[1] is g_BM:
            return self._last[2:]
        problem = self.problem
        u_BN = problem.a_BN * torch.exp((f_BN - self._f0_BN) / problem.epsilon_B1)
        return u_BN, problem.b_BM * torch.exp((g_BM - self._g0_BM) / problem.epsilon_B1)

    def row_mass(self, f_BN: Tensor, g_BM: Tensor) -> Tensor:
        """See :class:`~optical_scale.transport.operators.Operators`."""
        u_BN, v_BM = self._scalings(f_BN, g_BM)
        return u_BN * torch.bmm(v_BM.unsqueeze(1), self._K_BNM.transpose(1, 2))[:, 0]

    def apply_plan(self, f_BN: Tensor, g_BM: Tensor, values: Tensor, axis: int) -> PlanProduct:
        """See :class:`~optical_scale.transport.operators.Operators`."""
        u_BN, v_BM = self._scalings(f_BN, g_BM)
        K_BNM = self._K_BNM
        mass_BN = u_BN * torch.bmm(v_BM.unsqueeze(1), K_BNM.transpose(1, 2))[:, 0]
        if K_BNM.shape[2] <= values.shape[2]:
            plan_BNM = (K_BNM * u_BN.unsqueeze(2)).mul_(v_BM.unsqueeze(1))
            return PlanProduct(torch.bmm(plan_BNM if axis == 1 else plan_BNM.transpose(1, 2), values), mass_BN)
        # With more columns than values are wide, scaling the values takes less memory than the plan would.
        if axis == 1:
            return PlanProduct(torch.bmm(K_BNM, values * v_BM.unsqueeze(2)).mul_(u_BN.unsqueeze(2)), mass_BN)
        product = torch.bmm(K_BNM.transpose(1, 2), values * u_BN.unsqueeze(2)).mul_(v_BM.unsqueeze(2))
        return PlanProduct(product, mass_BN)


class Streamed(DenseExp):
    """:class:`DenseExp` for CPUs, pair by pair: one read of the kernel per full iteration serves both halves of it.

    Rows pass through in panels small enough to stay in cache between ``K v`` and ``K^T u``. Compiled sweeps do this
    where :mod:`~optical_scale.transport.native` can provide them; matrix-vector products do it elsewhere.
    """

    def _kernel(self, p_BND: Tensor, q_BMD: Tensor, factor_B11: Tensor) -> Tensor:
        sweeps = native.sweeps() if native.usable(p_BND, q_BMD) else None
        B, N, M = len(p_BND), p_BND.shape[1], q_BMD.shape[1]
        K_BNM, rows = p_BND.new_empty(B, N, M), max(_LEAST_ROWS, 4 * _CPU_CHUNK // M)
        for pair, factor in enumerate(factor_B11.flatten().tolist()):
            for K_RM, p_RD in zip(torch.split(K_BNM[pair], rows), torch.split(p_BND[pair], rows), strict=True):
                if sweeps is None:
                    torch.addmm(K_RM, p_RD, q_BMD[pair].t(), beta=0, alpha=factor, out=K_RM).exp_()
                else:
                    torch.mm(p_RD, q_BMD[pair].t(), out=K_RM)
                    sweeps.exponentiate(K_RM, factor)
        return K_BNM

    def apply_plan(self, f_BN: Tensor, g_BM: Tensor, values: Tensor, axis: int) -> PlanProduct:
        """See :class:`~optical_scale.transport.operators.Operators`."""
        B, N, M = self._K_BNM.shape
        if values.shape[2] < M:
            return super().apply_plan(f_BN, g_BM, values, axis)
        u_BN, v_BM = self._scalings(f_BN, g_BM)
        mass_BN, product = torch.empty_like(u_BN), values.new_empty(B, N if axis == 1 else M, values.shape[2])
        rows = min(N, max(_LEAST_ROWS, 4 * _CPU_CHUNK // M))
        plan_RM = self._K_BNM.new_empty(rows, M)
        for pair in range(B):
            for start in range(0, N, rows):
                part = slice(start, min(N, start + rows))
                torch.mul(self._K_BNM[pair, part], v_BM[pair], out=plan_RM[: part.stop - start])
                P_RM = plan_RM[: part.stop - start].mul_(u_BN[pair, part, None])
                torch.sum(P_RM, 1, out=mass_BN[pair, part])
                if axis == 1:
                    torch.mm(P_RM, values[pair], out=product[pair, part])
                elif start == 0:
                    torch.mm(P_RM.t(), values[pair, part], out=product[pair])
                else:
                    product[pair].addmm_(P_RM.t(), values[pair, part])
        return PlanProduct(product, mass_BN)

    def _run(self, u_BN: Tensor, v_BM: Tensor, count: int) -> None:
        problem = self.problem
        if problem.transported_B1 is not None:
            return super()._run(u_BN, v_BM, count)
        # The scaling of a product of one is the factor of every other.
        weight_BN = scaling(problem.a_BN, torch.ones_like(u_BN), problem, self._f0_BN)
        weight_BM = scaling(problem.b_BM, torch.ones_like(v_BM), problem, self._g0_BM)
        power_B1 = torch.ones_like(problem.epsilon_B1) if problem.damping is None else problem.damping
        B, N, M = self._K_BNM.shape
        sweeps = native.sweeps() if native.usable(self._K_BNM) else None
        if sweeps is not None and torch.get_num_threads() <= B and N * M < LARGE:
            sweeps.iterate(self._K_BNM, weight_BN, weight_BM, u_BN, v_BM, power_B1.flatten(), self._relaxation, count)
            return None
        # A plain kernel lies within e^-50 .. e^50; a shifted one may hold denormal numbers.
        halves = N * M >= LARGE and not self._shift
        for pair, power in enumerate(power_B1.flatten().tolist()):
            masses, scalings = (weight_BN[pair], weight_BM[pair]), (u_BN[pair], v_BM[pair])
            if sweeps is None:
                _iterate_panels(self._K_BNM[pair], *masses, *scalings, power, self._relaxation, count)
            else:
                iterate_pair(self._K_BNM[pair], *masses, *scalings, power, self._relaxation, count, halves=halves)
        return None


def _iterate_panels(
    K_NM: Tensor,
    weight_N: Tensor,
    weight_M: Tensor,
    u_N: Tensor,
    v_M: Tensor,
    power: float,
    relaxation: float,
    count: int,
) -> None:
    """What :func:`~optical_scale.transport.halves.iterate_pair` does with whole floats, where nothing is compiled."""
    rows = max(_LEAST_ROWS, _CPU_PANEL // len(v_M))
    panels = list(zip(*(torch.split(array, rows) for array in (K_NM, weight_N, u_N)), strict=True))
    column_M = torch.empty_like(v_M)
    relaxed = bool(relaxation != 1.0 and u_N.any())

    def update(out: Tensor, weight: Tensor, product: Tensor, mix: float) -> None:
        if power == mix == 1.0:
            torch.div(weight, product, out=out)
        else:
            out.copy_(relaxed_scaling(weight * product.pow(-power), out, mix))

    for step in range(count):
        column_M.zero_()
        # To and fro: a sweep begins with what caches still hold of the one before.
        for K_RM, weight_R, u_R in panels[:: 1 if step % 2 else -1]:
            update(u_R, weight_R, torch.mv(K_RM, v_M), relaxation if relaxed else 1.0)
            column_M.addmv_(K_RM.t(), u_R)
        relaxed = relaxation != 1.0
        update(v_M, weight_M, column_M, relaxation if step + 1 < count else 1.0)


class DenseLog:
    """Sinkhorn potentials on a stored ``-C / epsilon``; out of place throughout, so autograd may record it."""

    def __init__(self, problem: TransportProblem, *, relaxation: float = 1.0) -> None:
        self.problem, self._relaxation = problem, relaxation
        self._log_K_BNM = problem.geometry.cost() / -problem.epsilon_B1.unsqueeze(2)
        # log 0 = -inf is exact: such entries vanish from every sum, whatever the scale of the others.
        self._log_a_BN, self._log_b_BM = log_masses(problem.a_BN), log_masses(problem.b_BM)

    def iterate(self, g_BM: Tensor, count: int, f_BN: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :class:`~optical_scale.transport.operators.Operators`."""
        problem, epsilon_B1 = self.problem, self.problem.epsilon_B1
        for step in range(count):
            v_B1M = (g_BM / epsilon_B1 + self._log_b_BM).unsqueeze(1)
            next_f_BN = row_potential(torch.logsumexp(self._log_K_BNM + v_B1M, 2), problem)
            f_BN = relaxed_potential(next_f_BN, f_BN, self._relaxation)
            u_BN1 = (f_BN / epsilon_B1 + self._log_a_BN).unsqueeze(2)
            next_g_BM = column_potential(torch.logsumexp(self._log_K_BNM + u_BN1, 1), problem)
            g_BM = relaxed_potential(next_g_BM, g_BM, self._relaxation if step + 1 < count else 1.0)
        assert f_BN is not None, "at least one iteration"
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
        plan_BNM = self.plan(f_BN, g_BM)
        left = plan_BNM if axis == 1 else plan_BNM.transpose(1, 2)
        return PlanProduct(torch.bmm(left, values), plan_BNM.sum(2))


def _offsets(cost_BNM: Tensor, problem: TransportProblem) -> tuple[Tensor, Tensor]:
    """Row minima over columns with mass, then column minima of the remainder over rows with mass."""
    infinity = float("inf")
    f0_BN = cost_BNM.masked_fill((problem.b_BM == 0)[:, None, :], infinity).amin(2)
    remainder_BNM = cost_BNM - f0_BN[:, :, None]
    g0_BM = remainder_BNM.masked_fill_((problem.a_BN == 0)[:, :, None], infinity).amin(1)
    return f0_BN, g0_BM
