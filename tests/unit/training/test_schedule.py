import pytest

from optical_scale.training.schedule import learning_rate_factor


def curve(steps, warmup, decay):
    factor = learning_rate_factor(steps, warmup, decay)
    return [factor(update) for update in range(steps + 1)]


def test_linear():
    assert curve(10, 0.2, "linear") == pytest.approx([0.5, 1, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0])


def test_cosine_and_constant():
    assert curve(4, 0.0, "cosine") == pytest.approx([1, 0.85355339, 0.5, 0.14644661, 0], abs=1e-8)
    assert curve(4, 0.5, "constant") == [0.5, 1, 1, 1, 1]


def test_the_first_update_moves_and_nothing_is_negative_beyond_the_end():
    for decay in ("linear", "cosine", "constant"):
        factor = learning_rate_factor(5, 1.0, decay)
        assert factor(0) == pytest.approx(0.2)
        assert factor(4) == 1
        assert 0 <= factor(50) <= 1


def test_warmup_is_rounded_up_to_whole_updates():
    assert curve(10, 0.11, "constant")[:3] == [0.5, 1, 1]
