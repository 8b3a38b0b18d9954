import pytest
import torch

from optical_scale.batch import TokenStates
from optical_scale.losses.greedy import GreedyAlignment


def states(*rows, mask=None):
    x_BTD = torch.tensor([rows])
    mask_BT = torch.ones(x_BTD.shape[:2], dtype=torch.bool) if mask is None else torch.tensor([mask])
    return TokenStates(x_BTD, mask_BT, torch.ones_like(mask_BT))


X, Y, MINUS = [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]


@pytest.mark.parametrize(("direction", "expected"), [("student", 0.0), ("teacher", 0.5), ("both", 0.25)])
def test_only_the_side_that_chooses_counts(direction, expected):
    # The student says one word twice; only the teacher's tokens notice that the other is missing.
    loss = GreedyAlignment(direction)(states(X, Y), states(X, X))
    assert loss.sum.item() == pytest.approx(expected)
    assert loss.weight == 1


def test_far_tokens_are_chosen_before_those_outside_the_mask():
    loss = GreedyAlignment()(states(MINUS, X, mask=[True, False]), states(X))
    assert loss.sum.item() == pytest.approx(2.0)
