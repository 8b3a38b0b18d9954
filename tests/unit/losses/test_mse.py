import pytest
import torch

from optical_scale.batch import TokenStates
from optical_scale.losses.mse import PooledMSE


def one_token(*vectors):
    x_BTD = torch.tensor(vectors)[:, None]
    mask_BT = torch.ones(len(vectors), 1, dtype=torch.bool)
    return TokenStates(x_BTD, mask_BT, mask_BT)


def test_it_is_two_minus_twice_the_cosine():
    teacher = one_token([1.0, 0.0], [1.0, 0.0], [1.0, 0.0])
    output = PooledMSE()(teacher, one_token([3.0, 0.0], [0.0, 2.0], [-1.0, 0.0]))
    assert output.sum.item() == pytest.approx(0.0 + 2.0 + 4.0)
    assert output.weight == 3
    assert output.metrics == {}


def test_special_tokens_count_in_the_mean():
    x_BTD = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    attention_BT = torch.ones(1, 2, dtype=torch.bool)
    student = TokenStates(x_BTD, torch.tensor([[True, False]]), attention_BT)
    assert PooledMSE()(one_token([1.0, 1.0]), student).sum.item() == pytest.approx(0.0, abs=1e-6)
