"""The Triton backend: Sinkhorn on the GPU in three tiers, and the plan applied without being stored.

``pairs``: short pairs, one program each, the kernel matrix on chip over all iterations (in registers up to 128 x 128
tokens, above that in the cache of the program's multiprocessor), one launch.
``stored``: the kernel matrix is computed once and read once per iteration; one launch if a program can own a pair.
``tiles``: tiles of the kernel are recomputed twice per iteration; memory O((N + M) D) whatever N x M.

With ``L = log2(e) / epsilon`` and potentials f, g the state is the logarithm of each token's sum,
``lse_i = log2 sum_j b_j exp((g_j - (C_ij - r_i)) / epsilon)`` where ``r_i`` is the cost's constant and the row's own
term: ``f_i = damping (r_i - lse_i / L)``. The other side is the same with the column's additive term.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from optical_scale.transport.operators import PlanProduct
from optical_scale.transport.problem import TransportProblem
from optical_scale.transport.triton import kernels, pairs
from optical_scale.transport.triton.features import Features, prepare
from optical_scale.transport.triton.launch import (
    PAIR_ELEMENTS,
    SWEEP_COLUMNS,
    SweepGrid,
    Tier,
    Tile,
    column_parts,
    divide_up,
    power_of_two,
)
from optical_scale.transport.triton.support import interpreted

Precision = Literal["ieee", "tf32x3", "tf32"]
_LOG2_E = 1.4426950408889634


class _Side(NamedTuple):
    """One side as the kernels read it: features with factors, base, and additive terms times L."""

    features: Features
    base: Tensor
    offset: Tensor
    mass: Tensor


class _Sums(NamedTuple):
    """Maxima and sums (parts, B, T) of a half-step."""

    tops: Tensor
    totals: Tensor

    @property
    def parts(self) -> int:
        return self.totals.shape[0]


class TritonOperators:
    """See :class:`~optical_scale.transport.operators.Operators`.

    Nothing here waits for the device, allocates by value, or uses atomics: it may be captured in a CUDA graph, and two
    runs agree in every bit.
    """

    def __init__(
        self, problem: TransportProblem, tier: Tier, *, log_domain: bool, precision: Precision = "ieee"
    ) -> None:
        """Prepare features, and for the stored tier compute its matrix.

        Args:
            problem: the batch, float32, on a CUDA device or anywhere under Triton's interpreter.
            tier: which kernels; see the module.
            log_domain: iterate with running maxima; needed when the cost's range over epsilon exceeds what float32
                scalings hold.
            precision: of products of float32 features: exact float32, three TF32 products (about 21 bits), or one
                (10 bits, whose error the kernel magnifies by 1 / epsilon). bfloat16 features are always exact.
        """
        self.problem, self.tier, self._log_domain = problem, tier, log_domain
        geometry, epsilon_B1 = problem.geometry, problem.epsilon_B1
        (B, self._N), self._M = problem.a_BN.shape, problem.b_BM.shape[1]
        self._B, self._D = B, geometry.p_BND.shape[2]
        self._unit_B1 = _LOG2_E / epsilon_B1
        damping_B1 = problem.damping
        self._damping_B1 = torch.ones_like(epsilon_B1) if damping_B1 is None else damping_B1
        x, y = prepare(problem)
        x = Features(x.values_BTD, x.factor_BT * (geometry.scale * self._unit_B1))
        self._x = self._side(x, problem.a_BN, geometry.row_BN, geometry.constant)
        self._y = self._side(y, problem.b_BM, geometry.column_BM, 0.0)
        self._tile = Tile.of(x.values_BTD.dtype, self._N, self._M, self._D)
        self._options = {"PRECISION": precision, "INTERPRETED": interpreted()}
        self._launch_options = {"num_warps": self._tile.warps, "num_stages": self._tile.stages}
        self._all_active_B = torch.ones(B, dtype=torch.int32, device=epsilon_B1.device)
        # Beyond what registers hold, a short pair's kernel stays with its program in the cache.
        self._owned = tier == "pairs" and power_of_two(self._N) * power_of_two(self._M) > PAIR_ELEMENTS
        self._stored = self._build() if tier == "stored" or self._owned else None

    def iterate(self, g_BM: Tensor, count: int, f_BN: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See the protocol; there is no over-relaxation here, so ``f_BN`` is not read."""
        return self.iterate_some(g_BM, count, self._all_active_B)

    def iterate_some(self, g_BM: Tensor, count: int, active_B: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`~optical_scale.transport.operators.Skipping`."""
        active_B = active_B.to(torch.int32)
        column_lse_BM = self._y.offset - g_BM * (self._unit_B1 / self._damping_B1)
        if self.tier == "pairs" and not self._owned:
            row_lse_BN, column_lse_BM = self._solve_pairs(column_lse_BM, count, active_B)
        elif self._stored is not None and self._M <= SWEEP_COLUMNS:
            row_lse_BN, column_lse_BM = self._sweeps(column_lse_BM, count, active_B)
        else:
            row_lse_BN, column_lse_BM = self._half_steps(column_lse_BM, count, active_B)
        return self._potential(self._x, row_lse_BN), self._potential(self._y, column_lse_BM)

    def row_mass(self, f_BN: Tensor, g_BM: Tensor) -> Tensor:
        """See the protocol."""
        balanced_lse_BM = self._y.offset - g_BM * self._unit_B1
        # Row sums of the plan are a half-step with undamped weights, then the rows' own weights.
        sums = self._half_step(self._x, self._y, self._seed(balanced_lse_BM), self._all_active_B, damped=False)
        weight_BN = self._weight(self._x, f_BN)
        return torch.exp2(weight_BN + self._lse(sums))

    def apply_plan(self, f_BN: Tensor, g_BM: Tensor, values: Tensor, axis: int) -> PlanProduct:
        """See the protocol. The problem's own features are read in the precision they came in."""
        rows, columns = (self._x, self._y) if axis == 1 else (self._y, self._x)
        own = self.problem.geometry.q_BMD if axis == 1 else self.problem.geometry.p_BND
        potentials = (f_BN, g_BM) if axis == 1 else (g_BM, f_BN)
        u, v = self._weight(rows, potentials[0]), self._weight(columns, potentials[1])
        factors: Tensor | None = None
        if values is own and columns.features.values_BTD.dtype == torch.bfloat16:
            values, factors = columns.features
            if axis == 0:
                # The factors of x carry scale / epsilon for the iterations; the product must not.
                factors = factors / (self.problem.geometry.scale * self._unit_B1)
        product, mass = self._apply(rows, columns, u, v, values.contiguous(), factors, transposed=axis == 0)
        return PlanProduct(product, mass if axis == 1 else self.row_mass(f_BN, g_BM))

    def _side(self, features: Features, mass: Tensor, additive: Tensor | None, constant: float) -> _Side:
        offset = torch.full_like(mass, constant) if additive is None else additive + constant
        offset = offset * self._unit_B1
        # Zero when balanced; the undamped part of the additive terms otherwise.
        rest = offset * (1.0 - self._damping_B1)
        base = mass.log2() - rest if self._log_domain else mass * torch.exp2(-rest)
        return _Side(features, base.contiguous(), offset, mass)

    def _potential(self, side: _Side, lse: Tensor) -> Tensor:
        potential = (side.offset - lse) * (self._damping_B1 / self._unit_B1)
        return potential.masked_fill(side.mass == 0, 0.0)

    def _weight(self, side: _Side, potential: Tensor) -> Tensor:
        """``log2`` of a token's factor in the plan, without what ``inner`` holds."""
        return (side.mass.log2() + potential * self._unit_B1 - side.offset).contiguous()

    def _seed(self, lse: Tensor) -> _Sums:
        tops, totals = (lse, torch.ones_like(lse)) if self._log_domain else (lse, torch.exp2(lse))
        return _Sums(tops.unsqueeze(0).contiguous(), totals.unsqueeze(0).contiguous())

    def _empty(self, parts: int, tokens: int) -> _Sums:
        """Room for sums; one array serves as both where no maxima are kept."""
        totals = self._unit_B1.new_ones(parts, self._B, tokens)
        return _Sums(torch.zeros_like(totals) if self._log_domain else totals, totals)

    def _lse(self, sums: _Sums) -> Tensor:
        if not self._log_domain:
            return sums.totals.sum(0).log2()
        top = sums.tops.amax(0)
        return top + (sums.totals * torch.exp2(sums.tops - top)).sum(0).log2()

    def _flags(self, *, damped: bool = True) -> dict[str, bool]:
        return {"LOG": self._log_domain, "BALANCED": self.problem.rho is None or not damped}

    def _blocks(self) -> dict[str, int]:
        return {"BN": self._tile.BN, "BM": self._tile.BM, "BK": self._tile.BK}

    def _solve_pairs(self, lse_BM: Tensor, count: int, active_B: Tensor) -> tuple[Tensor, Tensor]:
        x, y = self._x, self._y
        row_lse_BN, column_lse_BM = torch.zeros_like(x.base), torch.zeros_like(lse_BM)
        BN, BM = power_of_two(self._N), power_of_two(self._M)
        pairs.solve_pairs[(self._B,)](
            x.features.values_BTD, y.features.values_BTD, x.features.factor_BT, y.features.factor_BT,
            x.base, y.base, self._damping_B1, active_B, lse_BM, row_lse_BN, column_lse_BM,
            self._N, self._M, self._D, count,
            **self._flags(), BN=BN, BM=BM, BK=self._tile.BK, **self._options,
            num_warps=4 if BN * BM <= 64 * 64 else 8, num_stages=2,
        )  # fmt: skip
        return row_lse_BN, column_lse_BM

    def _build(self) -> Tensor:
        """The kernel matrix: bfloat16 for bfloat16 vectors, else float32; ``inner`` in float32 in the log domain."""
        x, y = self._x.features, self._y.features
        dtype = torch.float32 if self._log_domain else x.values_BTD.dtype
        stored = torch.empty(self._B, self._N, self._M, dtype=dtype, device=x.factor_BT.device)
        grid = (self._B * divide_up(self._N, self._tile.BN), divide_up(self._M, self._tile.BM))
        kernels.build[grid](
            x.values_BTD, y.values_BTD, x.factor_BT, y.factor_BT, stored, self._N, self._M, self._D,
            LOG=self._log_domain, **self._blocks(), **self._options, **self._launch_options,
        )  # fmt: skip
        return stored

    def _sweeps(self, lse_BM: Tensor, count: int, active_B: Tensor) -> tuple[Tensor, Tensor]:
        """Whole iterations on the stored matrix, one read each."""
        grid = SweepGrid.of(lse_BM.device, self._B, self._N, self._M, owned=self._owned)
        rows = self._empty(1, self._N)
        state = self._seed(lse_BM)
        owned = grid.panels == 1
        # Two sets of partial sums: the panels of one iteration read what those of the last one wrote.
        partial = [self._empty(grid.panels, self._M) for _ in range(1 if owned or grid.merged else 2)]
        merged = self._empty(1, self._M)
        for iteration in range(1 if owned else count):
            out = partial[iteration % len(partial)]
            kernels.sweep[(self._B * grid.panels,)](
                self._stored, self._x.base, self._y.base, self._damping_B1, active_B, *state, *rows, *out,
                self._B, self._N, self._M, grid.rows, count if owned else 1,
                PANELS=grid.panels, PARTS=state.parts, **self._flags(), R=grid.R, BM=grid.BM, num_warps=grid.warps,
            )  # fmt: skip
            state = self._merge(out, merged, active_B) if grid.merged else out
        return self._lse(rows), self._lse(state)

    def _merge(self, sums: _Sums, out: _Sums, active_B: Tensor) -> _Sums:
        T = sums.totals.shape[2]
        block = power_of_two(T, most=128)
        kernels.merge[(self._B * divide_up(T, block),)](
            active_B, *sums, *out, self._B, T, PARTS=sums.parts, LOG=self._log_domain, BT=block, num_warps=1
        )
        return out

    def _half_steps(self, lse_BM: Tensor, count: int, active_B: Tensor) -> tuple[Tensor, Tensor]:
        columns = self._seed(lse_BM)
        for _ in range(count):
            rows = self._half_step(self._x, self._y, columns, active_B)
            columns = self._half_step(self._y, self._x, rows, active_B)
        return self._lse(rows), self._lse(columns)

    def _half_step(self, side: _Side, over: _Side, sums: _Sums, active_B: Tensor, *, damped: bool = True) -> _Sums:
        """Sums for the tokens of ``side`` over those of ``over``, weighted by their own last sums."""
        (B, N), M = side.base.shape, over.base.shape[1]
        tile = self._tile
        BN, BM = (tile.BN, tile.BM) if side is self._x else (tile.BM, tile.BN)
        blocks = divide_up(N, BN)
        parts, span = column_parts(side.base.device, B * blocks, M, BM)
        out = self._empty(parts, N)
        strides = (self._M, 1) if side is self._x else (1, self._M)
        stored = self._stored if self._stored is not None else side.base
        base = over.base if damped else self._weight_base(over)
        kernels.half_step[(B * blocks, parts)](
            side.features.values_BTD, over.features.values_BTD, side.features.factor_BT, over.features.factor_BT,
            base, self._damping_B1, stored, active_B, *sums, *out, B, N, M, self._D, *strides, span,
            PARTS=sums.parts, **self._flags(damped=damped), STORED=self._stored is not None,
            RESIDENT=self._stored is None and tile.BK >= self._D, BN=BN, BM=BM, BK=tile.BK,
            **self._options, **self._launch_options,
        )  # fmt: skip
        return out

    def _weight_base(self, side: _Side) -> Tensor:
        """``base`` for weights that are not damped."""
        return side.mass.log2() if self._log_domain else side.mass.contiguous()

    def _apply(
        self, rows: _Side, columns: _Side, u: Tensor, v: Tensor, values: Tensor, factors: Tensor | None,
        *, transposed: bool,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        (B, N), M, E = u.shape, v.shape[1], values.shape[2]
        tile = Tile.of(values.dtype, N, M, self._D)
        out, mass = u.new_empty(B, N, E), u.new_empty(B, N)
        BE = power_of_two(E, most=128 if values.dtype == torch.bfloat16 else 64)
        BN, BM = min(tile.BN, 64), min(tile.BM, 64)
        stored = self._stored if self._stored is not None else u
        launch: Callable[..., Any] = kernels.apply[(B * divide_up(N, BN), max(1, divide_up(E, BE)))]
        launch(
            rows.features.values_BTD, columns.features.values_BTD, rows.features.factor_BT, columns.features.factor_BT,
            u, v, stored, values, v if factors is None else factors.contiguous(), out, mass, N, M, self._D, E,
            *((1, self._M) if transposed else (self._M, 1)),
            LOG=self._log_domain, STORED=self._stored is not None, SPLIT=values.dtype == torch.bfloat16,
            FACTORS=factors is not None, BN=BN, BM=BM, BK=tile.BK, BE=BE,
            **self._options, num_warps=4, num_stages=2,
        )  # fmt: skip
        return out, mass
