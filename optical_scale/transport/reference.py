"""Slow answers from elsewhere: a float64 loop written differently, and POT. Tests, diagnostics and benchmarks only."""

import numpy as np
import ot
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]


def cost_matrix(x_ND: Tensor, y_MD: Tensor, cost: str) -> Array:
    """The cost between two token sets in float64, each entry from its definition.

    Args:
        x_ND: vectors of the first side.
        y_MD: vectors of the second side.
        cost: "cosine", "sqeuclidean" or "dot".

    Returns:
        (N, M) costs.
    """
    x, y = x_ND.detach().double().numpy(), y_MD.detach().double().numpy()
    if cost == "sqeuclidean":
        return np.asarray(((x[:, None, :] - y[None, :, :]) ** 2).sum(-1))
    if cost == "cosine":
        x, y = (z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-300) for z in (x, y))
        return np.asarray(1.0 - x @ y.T)
    return np.asarray(-(x @ y.T))


def sinkhorn_plan(
    cost_NM: Array, a_N: Array, b_M: Array, epsilon: float, iterations: int, rho: float | None = None
) -> Array:
    """The plan after a fixed number of iterations from g = 0, in float64 and the log domain.

    Args:
        cost_NM: costs.
        a_N: row masses, zero allowed.
        b_M: column masses, zero allowed.
        epsilon: entropic strength.
        iterations: full iterations, f then g.
        rho: KL strength, None for balanced.

    Returns:
        (N, M) plan.
    """
    damping = 1.0 if rho is None else rho / (rho + epsilon)
    with np.errstate(divide="ignore"):
        log_a, log_b = np.log(a_N), np.log(b_M)
    f, g = np.zeros_like(a_N), np.zeros_like(b_M)
    for _ in range(iterations):
        f = -damping * epsilon * np.logaddexp.reduce((g - cost_NM) / epsilon + log_b, axis=1)
        g = -damping * epsilon * np.logaddexp.reduce((f[:, None] - cost_NM) / epsilon + log_a[:, None], axis=0)
    return np.asarray(np.exp((f[:, None] + g - cost_NM) / epsilon + log_a[:, None] + log_b))


def pot_entropic_plan(cost_NM: Array, a_N: Array, b_M: Array, epsilon: float, rho: float | None = None) -> Array:
    """POT's converged entropic plan (``ot.sinkhorn`` in the log domain, or its unbalanced counterpart)."""
    if rho is None:
        plan = ot.sinkhorn(a_N, b_M, cost_NM, epsilon, method="sinkhorn_log", numItermax=20_000, stopThr=1e-12)
    else:
        plan = ot.unbalanced.sinkhorn_unbalanced(
            a_N, b_M, cost_NM, epsilon, rho, reg_type="kl", numItermax=20_000, stopThr=1e-14
        )
    return np.asarray(plan)


def exact_cost(cost_NM: Array, a_N: Array, b_M: Array) -> float:
    """The unregularised transport cost (``ot.emd2``): a lower bound of every balanced ``<P, C>``."""
    return float(ot.emd2(a_N, b_M, cost_NM))


def as_array(x: Tensor) -> Array:
    """A detached float64 numpy copy."""
    return x.detach().to(torch.float64).cpu().numpy()
