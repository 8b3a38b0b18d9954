import numpy as np
import pytest

from optical_scale.errors import EvaluationError
from optical_scale.evaluation.language_gap import (
    LanguageGroups,
    bootstrap_means,
    gap_change,
    language_gap,
    mean_interval,
)

GROUPS = LanguageGroups(("de", "fr"), ("sw",))
VALUES = {"de": np.array([1.0, 0.5]), "fr": np.array([1.0, 1.0, 1.0, 0.0]), "sw": np.array([0.5, 0.25, 0.0])}


def test_formulas_on_hand_numbers():
    gap = language_gap(VALUES, GROUPS)
    assert gap.high_mean == pytest.approx((0.75 + 0.75) / 2)
    assert gap.low_mean == pytest.approx(0.25)
    assert gap.gap == pytest.approx(0.5)
    assert gap.relative_gap == pytest.approx(0.5 / 0.75)
    assert gap.interval[0] < 0.5 < gap.interval[1]


def test_a_language_with_many_queries_counts_once():
    values = {"de": np.zeros(1000), "fr": np.ones(2), "sw": np.zeros(3)}
    assert language_gap(values, GROUPS).high_mean == pytest.approx(0.5)


def test_intervals_repeat_with_the_seed_and_vanish_without_variance():
    assert language_gap(VALUES, GROUPS, seed=3) == language_gap(VALUES, GROUPS, seed=3)
    rng = np.random.default_rng(0)
    varied = {language: rng.random(50) for language in ("de", "fr", "sw")}
    assert language_gap(varied, GROUPS, seed=3).interval != language_gap(varied, GROUPS, seed=4).interval
    constant = {"de": np.ones(5), "fr": np.ones(5), "sw": np.full(5, 0.25)}
    assert language_gap(constant, GROUPS).interval == pytest.approx((0.75, 0.75))


def test_the_interval_has_the_width_of_the_normal_approximation():
    values = np.random.default_rng(0).random(400)
    low, high = mean_interval(values, resamples=4000)
    error = values.std() / 20
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.25 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.25 * error)


def test_draws_are_split_into_blocks_without_loss(monkeypatch):
    monkeypatch.setattr("optical_scale.evaluation.language_gap._DRAWS_PER_BLOCK", 10)
    means = bootstrap_means(np.array([1.0, 2.0, 3.0]), 8, np.random.default_rng(0))
    assert means.shape == (8,)
    assert np.all((means >= 1) & (means <= 3))


def test_change_is_paired():
    after = {language: values + (0.2 if language == "sw" else 0.0) for language, values in VALUES.items()}
    change, interval = gap_change(VALUES, after, GROUPS)
    assert change == pytest.approx(-0.2)
    assert interval == pytest.approx((-0.2, -0.2)), "the same queries improve alike, so nothing is uncertain"
    with pytest.raises(EvaluationError, match="sw has 3 queries before and 2 after"):
        gap_change(VALUES, after | {"sw": after["sw"][:2]}, GROUPS)


def test_groups_by_training_counts():
    groups = LanguageGroups.by_count({"sw": 10, "de": 900, "fr": 900, "am": 99, "hi": 100}, threshold=100)
    assert groups == LanguageGroups(("de", "fr", "hi"), ("am", "sw"))


def test_impossible_groups_are_refused():
    with pytest.raises(EvaluationError, match="both contain sw"):
        LanguageGroups(("de", "sw"), ("sw",))
    with pytest.raises(EvaluationError, match="empty"):
        LanguageGroups.by_count({"de": 5}, threshold=1)
    with pytest.raises(EvaluationError, match="no query was evaluated for fr"):
        language_gap({"de": np.ones(2), "sw": np.ones(2)}, GROUPS)


def test_nothing_relative_to_zero():
    zeros = {"de": np.zeros(3), "fr": np.zeros(3), "sw": np.zeros(3)}
    gap = language_gap(zeros, GROUPS)
    assert gap.gap == 0
    assert np.isnan([gap.relative_gap, *gap.relative_interval]).all()
