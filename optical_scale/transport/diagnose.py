"""How far a solution is from slow, independent answers: a float64 loop, POT, and the unregularised optimum."""

import warnings
from typing import NamedTuple

import numpy as np
from torch import Tensor

from optical_scale.errors import TransportError
from optical_scale.transport.geometry import Geometry, MatrixGeometry
from optical_scale.transport.output import SinkhornOutput

# Entries of one pair's cost that POT and the exact solver handle in seconds.
_LARGEST = 1 << 20


class Diagnosis(NamedTuple):
    """One pair of a solution, against references.

    Attributes:
        cost: ``<P, C>``.
        rounding: relative error of the cost against a float64 loop of as many iterations: what float32 loses.
        plan_rounding: largest error of an entry of the plan against that loop, relative to the largest entry.
        unfinished: relative distance of the cost from POT's converged plan: what more iterations would change.
        regularised: cost above the optimum without entropy (``ot.emd2``), what epsilon costs; None unless balanced.
        marginal_error: of the solution.
        effective_matches: of the solution, geometric mean over rows.
    """

    cost: float
    rounding: float
    plan_rounding: float
    unfinished: float
    regularised: float | None
    marginal_error: float
    effective_matches: float


def _exact(geometry: Geometry) -> Tensor:
    """The cost of one pair in float64, because the rounding of a cosine is most of what float32 loses."""
    if isinstance(geometry, MatrixGeometry):
        return geometry.cost_BNM[0].double()
    cost_NM = geometry.constant - geometry.scale * (geometry.p_BND[0].double() @ geometry.q_BMD[0].double().t())
    cost_NM = cost_NM if geometry.row_BN is None else cost_NM + geometry.row_BN[0].double()[:, None]
    return cost_NM if geometry.column_BM is None else cost_NM + geometry.column_BM[0].double()


def diagnose(output: SinkhornOutput, pair: int = 0) -> Diagnosis:
    """Compare one pair with references; slow, for a handful of pairs when something looks wrong.

    Args:
        output: a solution from zero potentials without schedule, over-relaxation or ``mass``.
        pair: which of its pairs.

    Returns:
        The comparison.

    Raises:
        TransportError: no such pair, one too large for the references, a partial plan, a solve that did not begin at
            zero or was not plain, or something else than a ``SinkhornOutput``.
    """
    # The references bring POT, which the package's users need not load.
    from optical_scale.transport.reference import as_array, exact_cost, pot_entropic_plan, sinkhorn_plan

    if not isinstance(output, SinkhornOutput):
        raise TransportError(f"output is a {type(output).__name__}; expected what solve or solve_matrix returned")
    problem = output.problem
    B, N, M = problem.geometry.shape
    if not isinstance(pair, int) or not 0 <= pair < B:
        raise TransportError(f"pair {pair!r} does not exist; the solution has {B}")
    if problem.transported_B1 is not None or not output.plain:
        raise TransportError("the references have no mass, start, schedule or relaxation; solve once without them")
    if N * M > _LARGEST:
        raise TransportError(f"pairs have {N} x {M} entries, the references at most {_LARGEST}; diagnose a shorter one")
    rows, columns = problem.a_BN[pair] > 0, problem.b_BM[pair] > 0
    one = problem.pairs(slice(pair, pair + 1))
    cost = as_array(_exact(one.geometry)[rows][:, columns])
    plan = as_array(output.plan()[pair][rows][:, columns])
    a, b = as_array(problem.a_BN[pair][rows]), as_array(problem.b_BM[pair][columns])
    epsilon, rho = float(problem.epsilon[pair]), problem.rho
    same = sinkhorn_plan(cost, a, b, epsilon, int(output.iterations_B[pair]), rho)
    with warnings.catch_warnings():
        # POT warns after 20,000 iterations, whose marginals are off by far less than what is reported here.
        warnings.filterwarnings("ignore", message="Sinkhorn did not converge")
        converged = pot_entropic_plan(cost, a, b, epsilon, rho)
    found, expected, limit = (float((p * cost).sum()) for p in (plan, same, converged))
    scale = max(float((same * np.abs(cost)).sum()), np.finfo(np.float64).tiny)
    return Diagnosis(
        cost=found,
        rounding=abs(found - expected) / scale,
        plan_rounding=float(np.abs(plan - same).max() / same.max()),
        unfinished=abs(expected - limit) / scale,
        regularised=limit - exact_cost(cost, a, b) if rho is None else None,
        marginal_error=float(output.marginal_error_B[pair]),
        effective_matches=float(output.effective_matches()[pair]),
    )
