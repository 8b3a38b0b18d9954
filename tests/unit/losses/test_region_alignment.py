import math

import pytest
import torch

from optical_scale.batch import PhraseRegions, TokenStates
from optical_scale.losses.objective import Mixture, Moment, at
from optical_scale.losses.region_alignment import RegionAlignment

D = 4


def states(x_BTD, mask=None):
    mask_BT = torch.ones(x_BTD.shape[:2], dtype=torch.bool) if mask is None else torch.tensor(mask)
    return TokenStates(x_BTD, mask_BT, torch.ones_like(mask_BT))


def regions(*phrases):
    """Phrases as (row, tokens, coverage of patches)."""
    rows, tokens, patches = zip(*phrases, strict=True)
    longest = 1 + max(max(own) for own in tokens)
    tokens_FN = torch.tensor([[place in own for place in range(longest)] for own in tokens])
    return PhraseRegions(torch.tensor(rows), tokens_FN, torch.tensor(patches, dtype=torch.float32))


def loss(teacher, student, found, temperature=0.05):
    return RegionAlignment(temperature, found)(teacher, student)


def axes(*numbers):
    """One row of tokens along the given axes."""
    return torch.eye(D)[None, list(numbers)]


def test_zero_when_every_token_attends_inside():
    output = loss(states(axes(0, 1)), states(axes(0, 1, 2)), regions((0, [0], [1, 0, 0]), (0, [1], [0, 1, 0])), 0.01)
    assert output.sum.item() == pytest.approx(0.0, abs=1e-6)
    assert output.metrics["mass_in_boxes"].item() == pytest.approx(1.0)


def test_equal_patches_share_the_mass():
    same = states(torch.ones(1, 4, D))
    output = loss(states(torch.ones(1, 2, D)), same, regions((0, [0, 1], [1, 0, 0, 0])))
    assert output.sum.item() == pytest.approx(math.log(4))
    assert output.metrics["mass_in_boxes"].item() == pytest.approx(0.25)


def test_the_definition():
    generator = torch.Generator().manual_seed(0)
    teacher, student = (states(torch.randn(2, n, D, generator=generator, dtype=torch.float64)) for n in (3, 4))
    found = regions((0, [0, 2], [0, 0.5, 0.25, 0]), (0, [1], [1, 0, 0, 1]), (1, [1], [0, 0, 0, 0.1]))
    unit = torch.nn.functional.normalize
    plan_BNM = (unit(teacher.x_BTD, dim=-1) @ unit(student.x_BTD, dim=-1).transpose(1, 2) / 0.3).softmax(-1)
    first = (plan_BNM[0, [0, 2]] @ torch.tensor([0.0, 1.0, 0.5, 0.0]).double()).mean()
    second, third = plan_BNM[0, 1, 0] + plan_BNM[0, 1, 3], plan_BNM[1, 1, 3]
    output = loss(teacher, student, found, 0.3)
    expected = -(first.log() + second.log()) / 2 - third.log()
    torch.testing.assert_close(output.sum, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(output.metrics["mass_in_boxes"], (first + second) / 2 + third, rtol=1e-6, atol=1e-6)
    assert output.weight == output.metrics["pairs_with_phrases"].item() == 2


def test_gradient_is_that_of_finite_differences():
    generator = torch.Generator().manual_seed(1)
    teacher_x, student_x = (torch.randn(2, n, D, generator=generator, dtype=torch.float64) for n in (3, 5))
    mask = [[False, True, True, True, True], [False, True, True, False, True]]
    found = regions((0, [0, 1], [1, 0.3, 0, 0]), (1, [2], [0, 0, 0.2, 0]), (1, [0], [0.5, 0, 0, 0]))

    def value(x_BTD, y_BTD):
        return loss(states(x_BTD), states(y_BTD, mask), found, 0.4).sum

    assert torch.autograd.gradcheck(value, (teacher_x.requires_grad_(), student_x.requires_grad_()))


def test_patches_and_tokens_are_counted_in_the_mask():
    generator = torch.Generator().manual_seed(2)
    x_BTD, y_BTD = (torch.randn(1, n, D, generator=generator) for n in (2, 4))
    found = regions((0, [1], [0, 1, 0, 0]))
    plain = loss(states(x_BTD), states(y_BTD), found).sum
    one_more = torch.full((1, 1, D), torch.nan)
    teacher = states(torch.cat([one_more, x_BTD, one_more], 1), [[False, True, True, False]])
    student = states(torch.cat([one_more, y_BTD], 1), [[False, True, True, True, True]])
    torch.testing.assert_close(loss(teacher, student, found).sum, plain)


def test_a_tiny_box_can_be_satisfied():
    output = loss(states(axes(0)), states(axes(0, 1)), regions((0, [0], [1e-6, 0])), 0.01)
    assert output.sum.item() == pytest.approx(0.0, abs=1e-6)


def test_scores_far_apart_have_a_finite_loss_and_gradient():
    y_BTD = axes(0, 1).requires_grad_()
    output = loss(states(axes(0)), states(y_BTD), regions((0, [0], [0, 1])), 1e-3)
    output.sum.backward()
    assert output.sum.item() == pytest.approx(1000)
    assert y_BTD.grad.isfinite().all()
    assert y_BTD.grad.any()


@pytest.mark.parametrize("found", [None, regions((0, [0], [1, 0]))])
def test_pairs_without_phrases_count_and_contribute_nothing(found):
    y_BTD = torch.randn(3, 2, D, generator=torch.Generator().manual_seed(3)).requires_grad_()
    output = loss(states(axes(0, 1).expand(3, -1, -1)), states(y_BTD), found)
    output.sum.backward()
    assert output.weight == 3
    assert output.metrics["pairs_with_phrases"].item() == (0 if found is None else 1)
    assert not y_BTD.grad[1:].any()
    assert bool(y_BTD.grad[:1].any()) == (found is not None)
    assert set(output.metrics) == {"mass_in_boxes", "pairs_with_phrases"}


def test_a_rank_without_pairs():
    empty = states(torch.zeros(0, 2, D).requires_grad_())
    output = loss(states(torch.zeros(0, 2, D)), empty, None)
    output.sum.backward()
    assert (output.sum.item(), output.weight) == (0.0, 0)


def test_a_mixture_hands_the_phrases_on():
    found = regions((0, [0], [0, 1]))
    mixture = at(Mixture([("region_alignment", 2.0, RegionAlignment(0.5))]), Moment(regions=found))
    sides = states(axes(0)), states(axes(0, 1))
    torch.testing.assert_close(mixture(*sides).sum, 2 * loss(*sides, found, 0.5).sum)
