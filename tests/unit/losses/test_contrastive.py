import math

import pytest
import torch

from optical_scale.batch import TokenStates
from optical_scale.losses.contrastive import Contrastive


def texts(*rows):
    """One list of token vectors per text, all of the same length."""
    x_BTD = torch.tensor(rows)
    mask_BT = torch.ones(x_BTD.shape[:2], dtype=torch.bool)
    return TokenStates(x_BTD, mask_BT, mask_BT)


X, Y = [1.0, 0.0], [0.0, 1.0]


def test_known_value():
    # Right pairs have cosine 1, wrong ones 0: each direction costs log(1 + exp(-1/t)) a pair.
    output = Contrastive(temperature=0.5)(texts([X], [Y]), texts([X], [Y]))
    assert output.sum.item() == pytest.approx(2 * math.log1p(math.exp(-2)))
    assert output.metrics["in_batch_accuracy"].item() == 2
    assert output.weight == 2
    crossed = Contrastive(temperature=0.5)(texts([X], [Y]), texts([Y], [X]))
    assert crossed.sum.item() == pytest.approx(2 * math.log1p(math.exp(2)))
    assert crossed.metrics["in_batch_accuracy"].item() == 0


def test_late_interaction_adds_its_weight():
    teacher, student = texts([X, X], [Y, Y]), texts([X, Y], [X, Y])
    dense = Contrastive(temperature=0.5)(teacher, student).sum.item()
    both = Contrastive(temperature=0.5, late_interaction=2.0)(teacher, student).sum.item()
    # MaxSim of the student as query: half its tokens find their match in either text, so both are equally good; of the
    # teacher as query: all tokens find theirs in either. The loss is that of a coin.
    assert both == pytest.approx(dense + 2.0 * 2 * math.log(2))


def test_each_side_has_gradient_when_both_are_trained():
    teacher, student = texts([X, Y], [Y, Y]), texts([X, X], [Y, X])
    for side in (teacher, student):
        side.x_BTD.requires_grad_()
    Contrastive(temperature=0.5, late_interaction=1.0)(teacher, student).sum.backward()
    assert teacher.x_BTD.grad.any()
    assert student.x_BTD.grad.any()
