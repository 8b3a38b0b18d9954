import pytest
import torch

from optical_scale.batch import TokenStates
from optical_scale.losses.list_kl import ListKL


def states(x_BTD):
    mask_BT = torch.ones(x_BTD.shape[:2], dtype=torch.bool)
    return TokenStates(x_BTD, mask_BT, mask_BT)


def random(seed):
    return states(torch.randn(4, 3, 8, generator=torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("scores", ["maxsim", "dense"])
def test_value_is_that_of_the_definition(scores):
    teacher, student = random(0), random(1)
    queries = [teacher.normalized(), student.normalized()]
    if scores == "maxsim":
        lists = [torch.einsum("bqd,ktd->bkqt", q, queries[0]).amax(-1).mean(-1) for q in queries]
    else:
        lists = [side.pooled() @ teacher.pooled().T for side in (teacher, student)]
    target, found = ((scores / 0.1).softmax(-1) for scores in lists)
    expected = (target * (target / found).log()).sum()
    output = ListKL(0.1, scores)(teacher, student)
    assert output.sum.item() == pytest.approx(expected.item(), rel=1e-4)
    assert ListKL(0.1, scores)(teacher, teacher).sum.item() == pytest.approx(0.0, abs=1e-6)
    assert output.metrics["same_first"] == (lists[0].argmax(1) == lists[1].argmax(1)).sum()
