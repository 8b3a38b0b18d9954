import pytest
import torch

from optical_scale.errors import TransportError
from optical_scale.transport import diagnose, sinkhorn_cost, solve, solve_matrix
from tests.unit.transport.problems import ragged_tokens


@pytest.mark.parametrize("rho", [None, 0.3])
def test_a_finished_solve_is_close_to_every_reference(rho):
    found = diagnose(solve(*ragged_tokens([9, 4], [5, 7]), epsilon=0.05, iterations=1000, rho=rho), pair=1)
    assert found.rounding < 3e-7 / 0.05
    assert found.plan_rounding < 3e-7 / 0.05
    assert found.unfinished < 1e-5
    assert found.marginal_error < 1e-5
    assert (found.regularised is None) == (rho is not None)
    assert rho is not None or found.regularised > 0


def test_what_is_unfinished_is_told_from_what_is_rounded():
    found = diagnose(solve(*ragged_tokens([9], [7]), epsilon=0.02, iterations=2))
    # Two or three entries decide so small a plan: what epsilon magnifies does not average out.
    assert found.rounding < 3e-7 / 0.02
    assert found.unfinished > 1e-4


def test_given_costs_and_bad_pairs():
    out = solve_matrix(torch.rand(1, 4, 3), epsilon=0.1)
    assert diagnose(out).rounding < 1e-6
    with pytest.raises(TransportError, match="pair 1 does not exist"):
        diagnose(out, 1)
    with pytest.raises(TransportError, match="references have no mass"):
        diagnose(solve(*ragged_tokens([4], [3]), mass=0.5))


@pytest.mark.parametrize("options", [{"relaxation": 1.5}, {"schedule": (4.0, 2.0)}, {"mass": 0.5}])
def test_what_the_references_do_not_do_is_refused(options):
    with pytest.raises(TransportError, match="no mass, start, schedule or relaxation"):
        diagnose(solve(*ragged_tokens([4], [3]), **options))


def test_a_cost_alone_has_no_plan_to_diagnose():
    with pytest.raises(TransportError, match="output is a SinkhornCost; expected what solve"):
        diagnose(sinkhorn_cost(*ragged_tokens([4], [3])))
