import json

import pytest

from optical_scale.errors import CheckpointError
from optical_scale.training.state import TrainState


def test_steps_are_counted_and_pairs_remembered():
    state = TrainState().after_step(0.5).after_step(0.25).with_pairs({"sw": 5, "de": 1})
    assert (state.step, state.pairs) == (2, {"sw": 5, "de": 1})


def test_a_point_of_the_curve_is_the_mean_since_the_last_one():
    state = TrainState()
    for loss in (4.0, 2.0):
        state = state.after_step(loss)
    state = state.logged().after_step(1.0).logged()
    assert state.losses == ((2, 3.0), (3, 1.0))
    assert state.unlogged == ()


def test_json_round_trip_in_the_middle_of_a_window():
    state = TrainState().with_pairs({"sw": 3}).after_step(0.1).logged().after_step(1 / 3)
    state = state.with_results([{"step": 2, "evaluation": "bitext", "metrics": {"MRR": 0.1}}])
    loaded = TrainState.from_json(json.loads(json.dumps(state.to_json())))
    assert loaded == state
    assert loaded.after_step(2 / 3).logged() == state.after_step(2 / 3).logged()


def test_another_version_is_refused():
    with pytest.raises(CheckpointError, match="found version 99; this release reads 1"):
        TrainState.from_json(TrainState().to_json() | {"version": 99})


def test_steps_without_update_count_and_leave_the_curve():
    state = TrainState().after_step(2.0).after_non_finite().after_step(4.0).logged()
    assert (state.step, state.non_finite, state.losses) == (3, 1, ((3, 3.0),))
    alone = state.after_non_finite().logged()
    assert (alone.step, alone.losses, alone.last_loss) == (4, ((3, 3.0),), 3.0)
    assert TrainState.from_json(json.loads(json.dumps(alone.to_json()))) == alone
