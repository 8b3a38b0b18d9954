"""Losses in turns and blocks against their definitions on the whole matrix."""

import pytest
import torch
from torch.nn import functional

from optical_scale.losses import in_batch
from optical_scale.losses.in_batch import sigmoid_in_turns, softmax_in_turns


def embeddings(seed, rows=7):
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(rows, 5, generator=generator, dtype=torch.float64), dim=-1)


def softmax_by_definition(t_BD, s_BD):
    scores_BB, target_B = s_BD @ t_BD.T / 0.1, torch.arange(len(t_BD))
    both = [functional.cross_entropy(scores, target_B, reduction="sum") for scores in (scores_BB, scores_BB.T)]
    return sum(both) / 2


def sigmoid_by_definition(t_BD, s_BD):
    sign_BB = 2 * torch.eye(len(t_BD), dtype=t_BD.dtype) - 1
    return -functional.logsigmoid(sign_BB * (s_BD @ t_BD.T / 0.1 - 4.0)).sum()


CASES = {
    "softmax": (lambda t, s: softmax_in_turns(t, s, (len(t),), 0.1), softmax_by_definition),
    "sigmoid": (lambda t, s: sigmoid_in_turns(t, s, (len(t),), 0.1, -4.0), sigmoid_by_definition),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("block", [1, 30, 1 << 22])
@pytest.mark.parametrize("both", [True, False])
def test_value_and_gradient(name, block, both, monkeypatch):
    monkeypatch.setattr(in_batch, "_BLOCK", block)
    ours, definition = CASES[name]
    t_BD, s_BD = embeddings(0).requires_grad_(both), embeddings(1).requires_grad_()
    inputs = (t_BD, s_BD) if both else (s_BD,)
    expected = definition(t_BD, s_BD)
    found, right = ours(t_BD, s_BD)
    torch.testing.assert_close(found, expected)
    for mine, wanted in zip(
        torch.autograd.grad(3 * found, inputs), torch.autograd.grad(3 * expected, inputs), strict=True
    ):
        torch.testing.assert_close(mine, wanted)
    assert right == ((s_BD @ t_BD.T).argmax(1) == torch.arange(7)).sum()


@pytest.mark.parametrize("name", CASES)
def test_the_same_teacher_sentence_is_no_negative(name):
    t_BD, s_BD = embeddings(0, 1).repeat(2, 1), embeddings(1, 2)
    both = CASES[name][0](t_BD, s_BD)[0]
    alone = sum(CASES[name][0](t_BD[row : row + 1], s_BD[row : row + 1])[0] for row in range(2))
    torch.testing.assert_close(both, alone)
