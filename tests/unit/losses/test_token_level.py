import pytest
import torch

from optical_scale.batch import TokenStates
from optical_scale.losses.token_level import TokenKL, TokenMSE


def states(*rows):
    x_BTD = torch.tensor([rows])
    mask_BT = torch.ones(x_BTD.shape[:2], dtype=torch.bool)
    return TokenStates(x_BTD, mask_BT, mask_BT)


def test_aligned_tokens_are_compared_wherever_they_stand():
    teacher = states([2.0, 0.0], [0.0, 2.0])
    loss = TokenMSE(epsilon=0.01, iterations=50)
    assert loss(teacher, states([0.0, 2.0], [2.0, 0.0])).sum.item() == pytest.approx(0.0, abs=1e-6)
    # Right directions, lengths off by one: one squared over two dimensions.
    assert loss(teacher, states([0.0, 3.0], [3.0, 0.0])).sum.item() == pytest.approx(0.5, abs=1e-4)


def test_one_token_for_two_learns_their_mean():
    output = TokenMSE(epsilon=0.01, iterations=50)(states([2.0, 0.0], [0.0, 2.0]), states([1.0, 1.0]))
    assert output.sum.item() == pytest.approx(0.0, abs=1e-6)
    assert output.metrics["effective_matches"].item() == pytest.approx(2.0, rel=1e-3)


def test_likenesses_are_compared_and_lengths_are_not():
    teacher = states([2.0, 0.0], [0.0, 2.0])
    loss = TokenKL(epsilon=0.01, iterations=50, temperature=0.5)
    assert loss(teacher, states([0.0, 5.0], [1.0, 0.0])).sum.item() == pytest.approx(0.0, abs=1e-6)


def test_the_divergence_of_one_token_by_hand():
    # Both teacher tokens share the student's one equally; e is the odds of a token's likeness to itself.
    e = 2.718281828459045
    own = torch.tensor([e, 1.0]) / (e + 1)
    target = (own + own.flip(0)) / 2
    found = torch.tensor([0.6, 0.8]).softmax(0)
    expected = (target * (target / found).log()).sum().item()
    loss = TokenKL(epsilon=0.5, iterations=200, temperature=1.0)
    output = loss(states([1.0, 0.0], [0.0, 1.0]), states([3.0, 4.0]))
    assert output.sum.item() == pytest.approx(expected, rel=1e-5)
    assert expected == pytest.approx(0.00499, abs=1e-5)
