import pytest
import torch

from optical_scale.errors import TransportError
from optical_scale.transport import matrix_cost, solve, solve_matrix
from optical_scale.transport.geometry import build_geometry
from tests.unit.transport.problems import ragged_tokens


@pytest.mark.parametrize("backend", ["dense", "streamed", "blockwise"])
@pytest.mark.parametrize("options", [{}, {"rho": 0.3}, {"mass": 0.5}, {"epsilon_mode": "relative", "epsilon": 0.5}])
def test_a_given_cost_is_solved_as_the_vectors_it_came_from(backend, options):
    batch = ragged_tokens([6, 4], [3, 5])
    cost_BNM = build_geometry("cosine", *batch).cost()
    cost_BNM[~(batch.mask_x_BN[:, :, None] & batch.mask_y_BM[:, None, :])] = torch.nan
    settings = {"epsilon": 0.05} | options
    given = solve_matrix(cost_BNM, *batch[2:], backend=backend, **settings)
    expected = solve(*batch, **settings)
    torch.testing.assert_close(given.plan(), expected.plan(), atol=3e-6, rtol=0)
    torch.testing.assert_close(given.primal_cost(), expected.primal_cost(), atol=3e-6, rtol=0)
    torch.testing.assert_close(given.dual_cost(), expected.dual_cost(), atol=3e-6, rtol=0)
    torch.testing.assert_close(
        given.effective_matches_per_row(), expected.effective_matches_per_row(), atol=1e-3, rtol=0
    )


def test_gradient_of_the_cost_is_the_plan():
    cost_BNM = torch.rand(2, 4, 3, requires_grad=True)
    out = solve_matrix(cost_BNM, epsilon=0.1)
    (got,) = torch.autograd.grad((matrix_cost(cost_BNM, out) * torch.tensor([1.0, -2.0])).sum(), cost_BNM)
    torch.testing.assert_close(got, out.plan() * torch.tensor([1.0, -2.0])[:, None, None])


@pytest.mark.parametrize(
    ("cost", "mask", "message"),
    [
        (torch.zeros(2, 3), None, "expected floating"),
        (torch.zeros(1, 0, 3), None, "expected floating"),
        (torch.full((1, 2, 3), torch.inf), None, "NaN or infinity between existing tokens"),
        (torch.zeros(1, 2, 3), torch.ones(1, 3, dtype=torch.bool), "mask_x_BN is"),
    ],
)
def test_bad_costs_are_explained(cost, mask, message):
    with pytest.raises(TransportError, match=message):
        solve_matrix(cost, mask)
    with pytest.raises(TransportError, match="the output is for costs"):
        matrix_cost(torch.zeros(1, 2, 2), solve_matrix(torch.zeros(1, 2, 3)))
