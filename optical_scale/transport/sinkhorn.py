"""The one Sinkhorn loop: how many iterations, when to stop, and which pairs are done."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from optical_scale.transport.operators import Operators, Skipping

# Share of the total mass that may be misplaced before a fixed-iteration solve is reported as not converged.
REPORTED_TOLERANCE = 1e-2


class Potentials(NamedTuple):
    """Where the loop stopped: f and g in units of the cost, and the full iterations used by each pair (int64)."""

    f_BN: Tensor
    g_BM: Tensor
    iterations_B: Tensor


@dataclass(frozen=True, slots=True)
class Sinkhorn:
    """Settings of the loop (Cuturi 2013).

    Attributes:
        iterations: full iterations, each updating f then g; the most that are run when a tolerance is set.
        tolerance: stop a pair once its marginal error is at most this; None runs all iterations and never waits.
        check_every: iterations between checks. Each check waits for the device once, unless the backend can skip
            pairs by a flag on the device; it runs on to the last iteration, with nothing left to do.
    """

    iterations: int = 20
    tolerance: float | None = None
    check_every: int = 10

    def __call__(self, operators: Operators, start: tuple[Tensor, Tensor] | None = None) -> Potentials:
        """Run from the potentials (f, g) of ``start``, or from g = 0.

        A pair that has met the tolerance is frozen, so its result does not depend on the pairs it was batched with.
        """
        problem = operators.problem
        # f only matters to over-relaxation: every iteration begins by computing it from g.
        previous_BN, g_BM = (None, torch.zeros_like(problem.b_BM)) if start is None else start
        f_BN = torch.zeros_like(problem.a_BN) if previous_BN is None else previous_BN
        used_B = torch.zeros(len(f_BN), dtype=torch.int64, device=f_BN.device)
        if self.tolerance is None:
            f_BN, g_BM = operators.iterate(g_BM, self.iterations, previous_BN)
            return Potentials(f_BN, g_BM, used_B + self.iterations)
        settled_B = torch.zeros_like(used_B, dtype=torch.bool)
        skipping = operators if isinstance(operators, Skipping) else None
        for done in range(0, self.iterations, self.check_every):
            count = min(self.check_every, self.iterations - done)
            if skipping is None:
                next_f_BN, next_g_BM = operators.iterate(g_BM, count, f_BN if done else previous_BN)
            else:
                next_f_BN, next_g_BM = skipping.iterate_some(g_BM, count, ~settled_B)
            f_BN = torch.where(settled_B[:, None], f_BN, next_f_BN)
            g_BM = torch.where(settled_B[:, None], g_BM, next_g_BM)
            used_B = torch.where(settled_B, used_B, done + count)
            error_B = problem.marginal_error(f_BN, operators.row_mass(f_BN, g_BM))
            settled_B = settled_B | (error_B <= self.tolerance)
            if skipping is None and bool(settled_B.all()):
                break
        return Potentials(f_BN, g_BM, used_B)

    def converged(self, marginal_error_B: Tensor) -> Tensor:
        """Whether each pair met the tolerance, or :data:`REPORTED_TOLERANCE` when none was set."""
        return marginal_error_B <= (REPORTED_TOLERANCE if self.tolerance is None else self.tolerance)
