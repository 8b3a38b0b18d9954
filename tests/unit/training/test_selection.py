import json
import math

import pytest

from optical_scale.errors import ConfigError
from optical_scale.training.selection import Selection
from optical_scale.training.state import TrainState


def result(language, mode, mrr):
    names = {"evaluation": "bitext", "direction": "text_to_text", "mode": mode, "language": language}
    return names | {"metrics": {"MRR": mrr, "R@1": mrr / 2}}


RESULTS = [
    result("sw", "dense", 0.2),
    result("sw", "late_interaction", 0.4),
    result("de", "dense", 0.6),
    result("de", "late_interaction", 0.8),
]


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("MRR", 0.5),
        ("bitext/mrr", 0.5),
        ("bitext/late_interaction/MRR", 0.6),
        ("bitext/R@1/dense/sw", 0.1),
    ],
)
def test_words_narrow_down_in_any_order_and_case(metric, value):
    assert Selection(metric).value(RESULTS) == pytest.approx(value)


@pytest.mark.parametrize("metric", ["bitext", "bitext/MRX", "image_text/MRR", "MRR/R@1", "MRR/xx"])
def test_words_that_fit_nothing_are_refused_with_the_known_ones(metric):
    with pytest.raises(ConfigError, match=r"expected one of the metrics MRR, R@1, and if wanted words of bitext, de"):
        Selection(metric).value(RESULTS)


def evaluated(selection, values):
    state = TrainState()
    for value in values:
        state = selection.after(state.after_step(1.0), value)
    return state


def test_the_earliest_of_equals_is_the_best_and_patience_counts_from_it():
    selection = Selection("MRR", patience=3)
    state = evaluated(selection, [0.1, 0.3, 0.3, 0.2])
    assert (state.best.step, state.best.value, state.best.since) == (2, 0.3, 2)
    assert not selection.exhausted(state)
    assert selection.exhausted(selection.after(state, math.nan))
    assert selection.after(state, 0.4).best.since == 0
    assert not Selection("MRR").exhausted(evaluated(selection, [0.3, *[0.1] * 50]))


def test_it_survives_the_checkpoint():
    state = evaluated(Selection("MRR", 2), [0.3, 0.1])
    assert TrainState.from_json(json.loads(json.dumps(state.to_json()))) == state
    old = TrainState().to_json()
    del old["best"]
    assert TrainState.from_json(old).best is None


def test_another_metric_starts_anew():
    state = evaluated(Selection("MRR", 2), [0.3, 0.1, 0.1])
    other = Selection("R@1", 2)
    assert not other.exhausted(state)
    assert other.after(state, 0.01).best.value == 0.01
