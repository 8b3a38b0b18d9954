import math

import pytest
import torch

from optical_scale.batch import TokenStates
from optical_scale.config import schedule
from optical_scale.errors import EngineError
from optical_scale.training.alarms import Alarms, Limit, finish_health, health


def states(x_BTD):
    mask_BT = torch.ones(x_BTD.shape[:2], dtype=torch.bool)
    return TokenStates(x_BTD, mask_BT, mask_BT)


def reported(teacher, student):
    sums = {name: float(value) for name, value in health(teacher, student).items()}
    return finish_health({name: value / max(1, len(student)) for name, value in sums.items()})


def random(rows=8, tokens=5, width=16, seed=0):
    return states(torch.randn(rows, tokens, width, generator=torch.Generator().manual_seed(seed)))


def test_known_values():
    # Two sentences of two orthogonal tokens each; the two means are orthogonal as well.
    axes = torch.eye(4).view(2, 2, 4)
    values = reported(states(axes), states(axes))
    assert values["token_variance"] == pytest.approx(0.5)
    assert values["uniformity"] == pytest.approx(-4.0, abs=1e-5)
    assert values["margin"] == pytest.approx(1.0)


def test_a_collapsed_student():
    values = reported(random(), states(torch.ones(8, 5, 16)))
    assert values["token_variance"] == pytest.approx(0.0, abs=1e-6)
    assert values["uniformity"] == pytest.approx(0.0, abs=1e-5)
    assert values["margin"] < 0
    healthy = reported(random(), random())
    assert healthy["token_variance"] > 0.5
    assert healthy["uniformity"] < -2
    assert healthy["margin"] > 0.2


def test_padding_changes_nothing():
    teacher, student = random(), random(seed=1)
    off_BT = torch.zeros(8, 2, dtype=torch.bool)
    mask_BT = torch.cat([student.mask_BT, off_BT], 1)
    padded = TokenStates(torch.cat([student.x_BTD, torch.full((8, 2, 16), 9.0)], 1), mask_BT, mask_BT)
    assert reported(teacher, padded) == pytest.approx(reported(teacher, student), abs=1e-5)


@pytest.mark.parametrize("rows", [0, 1])
def test_too_few_pairs_to_compare(rows):
    teacher, student = random().first(rows), random(seed=1).first(rows)
    sums = health(teacher, student)
    assert sums.keys() == health(random(), random()).keys()
    assert all(math.isfinite(float(value)) for value in sums.values())
    assert reported(teacher, student).keys() == {"token_variance"}


def test_the_same_sentence_twice_is_not_compared():
    one = random().first(1)
    twice = states(one.x_BTD.repeat(3, 1, 1))
    assert "uniformity" not in reported(twice, twice)


def test_it_stops_after_enough_steps_in_a_row():
    alarms = Alarms([Limit("uniformity", above=-0.01)], after=3)
    for step, value in enumerate([0.0, 0.0, -1.0, 0.0, 0.0]):
        alarms.check(step, {"uniformity": value})
    with pytest.raises(EngineError, match=r"step 5: uniformity is 0, above -0\.01 for 3 logged steps.*collapsed"):
        alarms.check(5, {"uniformity": 0.0})


def test_the_default_limits_stop_a_collapsed_student_and_no_fresh_one():
    default = schedule.Alarms()
    limits = [Limit(limit.metric, limit.above, limit.below) for limit in default.limits]
    collapsed, fresh = (reported(random(), student) for student in (states(torch.ones(8, 5, 16)), random(seed=1)))
    for limit in limits:  # each of them by itself
        alarms = Alarms([limit], default.after)
        for step in range(1, default.after):
            alarms.check(step, collapsed)
        with pytest.raises(EngineError, match=f"step {default.after}: {limit.metric} is .* the student may have coll"):
            alarms.check(default.after, collapsed)
        for step in range(2 * default.after):
            alarms.check(step, fresh)


def test_both_sides_of_a_limit():
    limit = Limit("effective_matches", above=8.0, below=1.0)
    assert [limit.broken_by(value) for value in (0.5, 1.0, 8.0, 9.0)] == [True, False, False, True]
    assert str(limit) == "above 8 or below 1"


def test_a_step_without_the_metric_neither_counts_nor_forgives():
    alarms = Alarms([Limit("margin", below=1.0)], after=2)
    alarms.check(1, {"margin": 0.0})
    alarms.check(2, {"loss": 1.0})
    with pytest.raises(EngineError, match="step 3: margin is 0, below 1 for 2 logged steps"):
        alarms.check(3, {"margin": 0.0})
