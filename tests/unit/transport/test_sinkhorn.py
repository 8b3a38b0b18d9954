import pytest
import torch

from optical_scale.transport.dense import DenseExp
from optical_scale.transport.problem import build_problem
from optical_scale.transport.sinkhorn import REPORTED_TOLERANCE, Sinkhorn
from tests.unit.transport.problems import ragged_tokens


@pytest.fixture
def operators():
    batch = ragged_tokens([9, 4, 1], [3, 7, 5])
    return DenseExp(
        build_problem(*batch, None, None, cost="cosine", epsilon=0.05, epsilon_mode="absolute", rho=None, check=True),
        shift=False,
    )


def test_without_tolerance_all_iterations_run_in_one_call(operators):
    f_BN, g_BM, iterations_B = Sinkhorn(12)(operators)
    expected = operators.iterate(torch.zeros_like(g_BM), 12)
    assert torch.equal(f_BN, expected[0])
    assert iterations_B.tolist() == [12, 12, 12]


def test_error_falls_with_iterations(operators):
    errors = []
    for iterations in (2, 8, 32):
        f_BN, g_BM, _ = Sinkhorn(iterations)(operators)
        errors.append(operators.problem.marginal_error(f_BN, operators.row_mass(f_BN, g_BM)).max().item())
    assert errors[0] > errors[1] > errors[2]


def test_an_unreachable_tolerance_stops_at_the_limit_and_says_so(operators):
    loop = Sinkhorn(25, tolerance=1e-12, check_every=10)
    f_BN, g_BM, iterations_B = loop(operators)
    assert iterations_B.max() == 25
    assert not loop.converged(operators.problem.marginal_error(f_BN, operators.row_mass(f_BN, g_BM))).all()


@pytest.mark.parametrize(("error", "expected"), [(REPORTED_TOLERANCE, True), (2 * REPORTED_TOLERANCE, False)])
def test_reported_tolerance_applies_when_none_is_set(error, expected):
    assert Sinkhorn(5).converged(torch.tensor([error])).item() is expected
