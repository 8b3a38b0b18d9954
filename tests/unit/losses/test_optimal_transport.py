import pytest
import torch

from optical_scale.batch import TokenStates
from optical_scale.losses.optimal_transport import OptimalTransport


def states(rows, mask=None):
    x_BTD = torch.tensor([rows])
    mask_BT = torch.ones(x_BTD.shape[:2], dtype=torch.bool) if mask is None else torch.tensor([mask])
    return TokenStates(x_BTD, mask_BT, torch.ones_like(mask_BT))


X, Y = [1.0, 0.0], [0.0, 1.0]


def test_known_costs():
    loss = OptimalTransport(epsilon=0.01, iterations=50)
    assert loss(states([X, Y]), states([Y, X])).sum.item() == pytest.approx(0.0, abs=1e-4)
    # All mass goes from x to y, at cosine distance 1; or half of it does.
    assert loss(states([X]), states([Y])).sum.item() == pytest.approx(1.0, abs=1e-5)
    assert loss(states([X]), states([X, Y])).sum.item() == pytest.approx(0.5, abs=1e-4)


def test_tokens_outside_the_mask_do_not_count():
    loss = OptimalTransport(epsilon=0.01, iterations=50)
    assert loss(states([X, Y], [True, False]), states([Y, X], [False, True])).sum.item() == pytest.approx(0.0, abs=1e-5)


def test_metrics_tell_convergence_and_sharpness():
    teacher, student = states([X, Y]), states([X, Y])
    sharp = OptimalTransport(epsilon=0.01, iterations=50)(teacher, student)
    blunt = OptimalTransport(epsilon=10.0, iterations=50)(teacher, student)
    assert sharp.metrics["effective_matches"].item() == pytest.approx(1.0, abs=1e-3)
    assert blunt.metrics["effective_matches"].item() == pytest.approx(2.0, abs=1e-2)
    assert sharp.metrics["marginal_error"].item() < 1e-4
    assert sharp.weight == 1
