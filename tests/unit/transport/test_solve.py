import pytest
import torch

from optical_scale.errors import TransportError
from optical_scale.transport import choose, native, solve
from tests.unit.transport.problems import ragged_tokens


@pytest.mark.parametrize(
    ("epsilon", "backend", "domain", "said"),
    [
        (0.02, "dense", "exp", "so exp domain"),
        (0.01, "dense", "exp", "with shifted kernel"),
        (0.005, "dense", "log", "is 400, so log domain"),
        (0.02, "blockwise", "exp", "is 100, so exp"),
        (0.01, "blockwise", "log", "is 200, so log"),
    ],
)
def test_domain_is_chosen_by_epsilon_and_explained(epsilon, backend, domain, said):
    choice = solve(*ragged_tokens([4], [3]), epsilon=epsilon, backend=backend).choice
    assert (choice.backend, choice.domain) == (backend, domain)
    assert said in choice.reason


def test_backend_is_chosen_by_size(monkeypatch):
    batch = ragged_tokens([4], [3])
    monkeypatch.setattr(native, "sweeps", lambda: None)
    assert solve(*batch).choice.backend == "dense"
    monkeypatch.setattr(choose, "_LARGE_PAIR", 12)
    assert solve(*batch).choice.backend == "streamed"
    assert solve(*batch, domain="log").choice.backend == "dense"
    monkeypatch.setattr(choose, "STORED_BYTES", 8)
    choice = solve(*batch).choice
    assert choice.backend == "blockwise"
    assert "above" in choice.reason


@pytest.mark.parametrize(("backend", "epsilon"), [("dense", 0.009), ("blockwise", 0.015)])
def test_forcing_the_exponential_domain_below_its_range_is_refused(backend, epsilon):
    with pytest.raises(TransportError, match=r"found 2.*use a larger epsilon|found 1.*use a larger epsilon"):
        solve(*ragged_tokens([4], [3]), epsilon=epsilon, backend=backend, domain="exp")


def test_additive_cost_cannot_be_forced_into_blockwise_scalings():
    with pytest.raises(TransportError, match="cost sqeuclidean holds"):
        solve(*ragged_tokens([4], [3]), epsilon=100.0, backend="blockwise", domain="exp", cost="sqeuclidean")


def test_a_solve_that_leaves_the_range_is_redone_in_the_log_domain(monkeypatch):
    monkeypatch.setattr(choose, "RANGE_OVER_EPSILON", 1e9)
    # Two groups between which single precision sees no path: scalings drift apart by a factor three per iteration.
    x_BND = torch.tensor([[[1.0, 0.0]] * 3 + [[-1.0, 0.0]]])
    y_BMD = torch.tensor([[[1.0, 0.0]] + [[-1.0, 0.0]] * 3])
    out = solve(x_BND, y_BMD, epsilon=0.001, iterations=200)
    assert torch.isfinite(out.primal_cost()).all()
    assert out.choice.domain == "log"
    assert "redone in log" in out.choice.reason
    with pytest.raises(TransportError, match="not finite after 200 iterations in the exp domain"):
        solve(x_BND, y_BMD, epsilon=0.001, iterations=200, domain="exp")


def test_per_pair_epsilon_equals_separate_solves():
    batch = ragged_tokens([6, 4], [3, 5])
    both = solve(*batch, epsilon=torch.tensor([0.02, 0.3]))
    for pair, epsilon in enumerate((0.02, 0.3)):
        one = solve(*(t[pair : pair + 1] for t in batch), epsilon=epsilon)
        torch.testing.assert_close(both.f_BN[pair], one.f_BN[0], atol=1e-6, rtol=0)


@pytest.mark.parametrize("backend", ["dense", "blockwise"])
def test_reduced_precision_products_are_off_in_solve_and_in_what_is_computed_later(backend):
    batch = ragged_tokens([64], [48], width=64)
    expected = solve(*batch, backend=backend).primal_cost()
    torch.set_float32_matmul_precision("medium")
    try:
        torch.testing.assert_close(solve(*batch, backend=backend).primal_cost(), expected, atol=1e-7, rtol=0)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
