from dataclasses import replace

import pytest
import torch

from optical_scale.batch import Queries, TokenStates
from optical_scale.losses.contrastive import Contrastive
from optical_scale.losses.mse import PooledMSE
from optical_scale.losses.objective import AtLayers, Mixture, Moment, Passages, Ramp, at
from optical_scale.losses.optimal_transport import OptimalTransport


def states(seed):
    x_BTD = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(seed))
    mask_BT = torch.ones(3, 5, dtype=torch.bool)
    return TokenStates(x_BTD, mask_BT, mask_BT)


def test_mixture_is_the_weighted_sum_and_reports_its_parts():
    teacher, student = states(0), states(1)
    transport, mse = OptimalTransport(), PooledMSE()
    first, second = transport(teacher, student), mse(teacher, student)
    mixed = Mixture([("optimal_transport", 2.0, transport), ("mse", 0.5, mse)])(teacher, student)
    assert mixed.sum.item() == pytest.approx(2.0 * first.sum.item() + 0.5 * second.sum.item())
    assert mixed.weight == 3
    assert mixed.metrics["optimal_transport"].item() == pytest.approx(first.sum.item())
    assert mixed.metrics["mse"].item() == pytest.approx(second.sum.item())
    assert mixed.metrics["marginal_error"] == first.metrics["marginal_error"]


def test_two_parts_of_one_kind_are_reported_apart():
    teacher, student = states(0), states(1)
    sharp, blunt = OptimalTransport(0.01), OptimalTransport(1.0)
    mixed = Mixture([("optimal_transport", 1.0, sharp), ("optimal_transport", 1.0, blunt)])(teacher, student)
    assert mixed.metrics["optimal_transport"].item() == pytest.approx(sharp(teacher, student).sum.item())
    assert mixed.metrics["optimal_transport_2"].item() == pytest.approx(blunt(teacher, student).sum.item())
    for metric in ("effective_matches", "marginal_error"):
        assert mixed.metrics[metric] == sharp(teacher, student).metrics[metric]
        assert mixed.metrics[f"{metric}_2"] == blunt(teacher, student).metrics[metric]


def test_a_ramp_is_a_line_between_two_levels():
    ramp = Ramp(start=1.0, end=0.0, from_step=10, to_step=20)
    assert [ramp.at(step) for step in (0, 10, 15, 20, 99)] == [1.0, 1.0, 0.5, 0.0, 0.0]


def test_weights_and_epsilons_follow_the_step():
    teacher, student = states(0), states(1)
    loss = OptimalTransport(Ramp(1.0, 0.02, 0, 10))
    mixture = Mixture([("mse", Ramp(0.0, 2.0, 0, 10), PooledMSE()), ("optimal_transport", 1.0, loss)])
    mse = PooledMSE()(teacher, student).sum.item()
    for step, weight, epsilon in ((0, 0.0, 1.0), (5, 1.0, 0.51), (50, 2.0, 0.02)):
        found = at(mixture, Moment(step))(teacher, student).sum.item()
        transport = OptimalTransport(epsilon)(teacher, student).sum.item()
        assert found == pytest.approx(weight * mse + transport, rel=1e-5)
    assert at(PooledMSE(), Moment(3))(teacher, student).sum.item() == pytest.approx(mse)


def test_layers_take_the_place_of_the_output_on_the_side_that_names_one():
    teacher, student = states(0), states(1)
    deep = [replace(side, layers={4: states(seed).x_BTD}) for side, seed in ((teacher, 2), (student, 3))]
    for numbers, compared in (((4, 4), (2, 3)), ((4, None), (2, 1)), ((None, 4), (0, 3))):
        found = AtLayers(PooledMSE(), *numbers)(*deep)
        assert found.sum.item() == pytest.approx(PooledMSE()(*map(states, compared)).sum.item())


def test_negatives_are_seen_in_the_teachers_layer():
    seen = [states(seed) for seed in range(3)]
    deep = [replace(states(seed + 9), layers={2: side.x_BTD}) for seed, side in enumerate(seen)]
    numbers = torch.arange(12).view(4, 3)
    known = Queries(*numbers, scores_B=torch.zeros(3), scores_R=torch.zeros(3))

    def loss(objective, teacher, student, negatives):
        return at(objective, Moment(0, (3,), Passages(negatives, known, (3,))))(teacher, student).sum.item()

    expected = loss(Contrastive(), *seen)
    assert loss(AtLayers(Contrastive(), 2, 2), *deep) == pytest.approx(expected)
    assert loss(Contrastive(), *deep) != pytest.approx(expected)


def test_a_ramp_moves_inside_of_layers():
    loss = AtLayers(OptimalTransport(Ramp(1.0, 0.02, 0, 10)), None, None)
    expected = OptimalTransport(0.51)(states(0), states(1)).sum.item()
    assert at(loss, Moment(5))(states(0), states(1)).sum.item() == pytest.approx(expected)
