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


def test_any_cost_of_the_shape_is_charged_for_the_plan_that_was_found():
    masks = torch.tensor([[True, True, True, False]]), torch.tensor([[True, False, True]])
    solved = torch.rand(1, 4, 3)
    out = solve_matrix(solved, *masks, epsilon=0.1)
    torch.testing.assert_close(matrix_cost(solved, out), out.primal_cost(), atol=0, rtol=0)
    other = torch.rand(1, 4, 3)
    expected = (out.plan() * other).sum((1, 2))
    other[:, 3], other[:, :, 1] = torch.nan, torch.inf
    torch.testing.assert_close(matrix_cost(other, out), expected)
    with pytest.raises(TransportError, match="of vectors, not of solve_matrix"):
        matrix_cost(torch.zeros(1, 3, 3), solve(torch.randn(1, 3, 4), torch.randn(1, 3, 4)))


@pytest.mark.parametrize("backend", ["dense", "blockwise"])
def test_later_changes_of_the_tensor_do_not_reach_the_solution(backend):
    cost_BNM = torch.rand(1, 4, 3)
    out = solve_matrix(cost_BNM, epsilon=0.1, backend=backend)
    before = out.primal_cost(), out.plan()
    cost_BNM.zero_()
    assert torch.equal(out.primal_cost(), before[0])
    assert torch.equal(out.plan(), before[1])


@pytest.mark.parametrize("backend", ["dense", "streamed"])
def test_autocast_changes_nothing(backend):
    cost_BNM = torch.rand(2, 40, 30, requires_grad=True)
    settings = {"epsilon": 0.05, "iterations": 300, "tolerance": 1e-5, "backend": backend}
    expected = solve_matrix(cost_BNM, **settings)
    (gradient,) = torch.autograd.grad(matrix_cost(cost_BNM, expected).sum(), cost_BNM)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = solve_matrix(cost_BNM, **settings)
        value_B = matrix_cost(cost_BNM, got)
        (same,) = torch.autograd.grad(value_B.sum(), cost_BNM)
    assert got.marginal_error_B.dtype == value_B.dtype == torch.float32
    for name in ("f_BN", "marginal_error_B", "iterations_B", "converged_B"):
        assert torch.equal(getattr(got, name), getattr(expected, name))
    assert torch.equal(value_B, matrix_cost(cost_BNM, expected))
    assert torch.equal(same, gradient)


@pytest.mark.parametrize("options", [{"epsilon_mode": "relative", "epsilon": 0.5}, {"epsilon": 0.05}])
def test_padding_has_no_part_in_the_range_of_the_costs(options):
    costs = 100 + torch.rand(1, 5, 4)
    padded = torch.full((1, 8, 9), torch.nan)
    padded[:, :5, :4] = costs
    masks = torch.arange(8)[None] < 5, torch.arange(9)[None] < 4
    expected, got = solve_matrix(costs, **options), solve_matrix(padded, *masks, **options)
    torch.testing.assert_close(got.problem.epsilon, expected.problem.epsilon)
    assert got.choice.domain == expected.choice.domain == "exp"
    torch.testing.assert_close(got.plan()[:, :5, :4], expected.plan(), atol=1e-4, rtol=0)


def test_the_largest_float_forbids_a_match():
    cost_BNM = torch.rand(1, 3, 3)
    cost_BNM[0, 0, :2] = torch.finfo(torch.float32).max
    out = solve_matrix(cost_BNM, epsilon=0.1, iterations=200)
    assert (out.plan()[0, 0, :2] == 0).all()
    assert bool(out.converged_B)
    assert out.primal_cost() < 1


@pytest.mark.parametrize("backend", ["dense", "streamed", "blockwise"])
@pytest.mark.parametrize("masked", [False, True])
def test_the_order_of_entries_in_memory_does_not_matter(backend, masked):
    cost_BNM = torch.rand(2, 4, 3)
    turned = cost_BNM.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    assert not turned.is_contiguous()
    mask = (torch.arange(4)[:, None] < torch.tensor([4, 2])).t() if masked else None
    plans = [solve_matrix(cost, mask, epsilon=0.1, backend=backend).plan() for cost in (cost_BNM, turned)]
    torch.testing.assert_close(*plans)


@pytest.mark.parametrize(
    ("cost", "mask", "message"),
    [
        (torch.zeros(2, 3), None, "expected floating"),
        (torch.zeros(1, 0, 3), None, "expected floating"),
        (torch.zeros(0, 2, 3), None, "expected floating"),
        (torch.zeros(1, 2, 3), torch.zeros(1, 2, dtype=torch.bool), "x has no tokens"),
        (torch.full((1, 2, 3), torch.nan), torch.ones(1, 2, dtype=torch.bool), "NaN or infinity between"),
        (torch.full((1, 2, 3), torch.inf), None, "NaN or infinity between existing tokens"),
        (torch.zeros(1, 2, 3), torch.ones(1, 3, dtype=torch.bool), "mask_x_BN is"),
    ],
)
def test_bad_costs_are_explained(cost, mask, message):
    with pytest.raises(TransportError, match=message):
        solve_matrix(cost, mask)


def test_shapes_and_backends_that_do_not_fit_are_refused():
    with pytest.raises(TransportError, match="the output is for costs"):
        matrix_cost(torch.zeros(1, 2, 2), solve_matrix(torch.zeros(1, 2, 3)))
    with pytest.raises(TransportError, match="backend is 'triton', whose kernels compute costs from vectors"):
        solve_matrix(torch.zeros(1, 2, 3), backend="triton")


def test_what_is_no_tensor_is_refused():
    cost = torch.rand(1, 4, 3)
    for options in ({"mask_x_BN": [[True] * 4]}, {"marginal_x": "a"}, {"backend": None}):
        with pytest.raises(TransportError, match="expected"):
            solve_matrix(cost, **options)
    with pytest.raises(TransportError, match="cost is a list"):
        solve_matrix(cost.tolist())
    with pytest.raises(TransportError, match="cost is a ndarray"):
        matrix_cost(cost.numpy(), solve_matrix(cost))
