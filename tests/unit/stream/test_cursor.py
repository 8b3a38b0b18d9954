import json

import pytest

from optical_scale.errors import ResumeError
from optical_scale.stream.cursor import StreamCursor, cursor_at
from optical_scale.stream.mixing import Mixture, Portion
from optical_scale.stream.order import SampleOrder
from optical_scale.stream.plan import StepPlan


def cursor(step=10, names="ab", pairs=60, language="sw", sizes=None, seed=3, pairs_per_step=8, **mixing):
    portions = [Portion(name, language if name == "a" else "de", pairs) for name in names]
    shards = [sizes or (pairs,)] * len(portions)
    orders = [SampleOrder(name, [pairs], seed) for name in names]
    return cursor_at(step, StepPlan(Mixture(portions, **mixing), orders, seed, pairs_per_step, pairs_per_step), shards)


def test_state_is_small_json_and_round_trips():
    state = cursor().state()
    text = json.dumps(state, allow_nan=False)
    assert StreamCursor.from_state(json.loads(text)) == cursor()
    assert len(text) < 500
    assert state["step"] == 10
    assert state["draws"] == 80
    assert state["drawn"] == {"de": 40, "sw": 40}
    assert set(state) == {"version", "step", "draws", "pairs_per_step", "seed", "sources", "shares", "drawn"}


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        ({}, []),
        ({"seed": 4}, ["seed was 3, is 4"]),
        ({"pairs_per_step": 16}, ["pairs_per_step was 8, is 16"]),
        ({"names": "abc"}, ["source 'c' is new"]),
        ({"names": "a"}, ["source 'b' is gone"]),
        ({"pairs": 61}, ["source 'a': pairs was 60, is 61", "source 'b': pairs was 60, is 61"]),
        ({"names": "ba"}, []),
        ({"language": "ur"}, ["source 'a': language was sw, is ur"]),
        ({"sizes": (20, 40)}, [f"source '{n}' has the same 60 pairs cut into other shards" for n in "ab"]),
        (
            {"weights": {"sw": 1, "de": 3}},
            [
                "probability of de was 1/2, is 3/4 (temperature or weights)",
                "probability of sw was 1/2, is 1/4 (temperature or weights)",
            ],
        ),
        ({"weights": {"sw": 2, "de": 2}}, []),
    ],
)
def test_changes_name_what_changed(present, expected):
    assert cursor().changes(cursor(**present)) == expected


def test_counts_of_another_drawing_rule_are_noticed():
    state = cursor().state()
    state["drawn"]["sw"] = 41
    (line,) = StreamCursor.from_state(state).changes(cursor())
    assert line == "draws so far of sw was 41, is 40 (the drawing rule changed)"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version 2; this release reads 1"),
        ({"sources": []}, "damaged"),
        ({"sources": {"a": {"pairs": 3}}}, "damaged: KeyError"),
        ({"step": "x"}, "damaged: ValueError"),
        ({"step": None}, "damaged: TypeError"),
        ({"step": 11}, "damaged: 80 draws after 11 steps of 8 pairs"),
        ({"step": -1, "draws": -8}, "damaged"),
    ],
)
def test_damaged_states_are_refused(change, message):
    with pytest.raises(ResumeError, match=message):
        StreamCursor.from_state(cursor().state() | change)


def test_a_missing_version_is_refused():
    with pytest.raises(ResumeError, match="version None"):
        StreamCursor.from_state({})
