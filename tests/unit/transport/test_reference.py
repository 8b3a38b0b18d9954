import numpy as np
import pytest
import torch

from optical_scale.transport.reference import cost_matrix, exact_cost, pot_entropic_plan, sinkhorn_plan


@pytest.mark.parametrize("rho", [None, 0.2])
def test_the_two_oracles_agree(rho):
    cost = cost_matrix(torch.randn(5, 4), torch.randn(4, 4), "cosine")
    a, b = np.array([0.5, 0.0, 0.25, 0.125, 0.125]), np.full(4, 0.25)
    if rho is not None:
        a = np.full(5, 0.2)
    mine = sinkhorn_plan(cost, a, b, 0.05, 5000, rho)
    np.testing.assert_allclose(mine, pot_entropic_plan(cost, a, b, 0.05, rho), atol=1e-7)
    if rho is None:
        assert exact_cost(cost, a, b) <= (mine * cost).sum()
