import itertools

import numpy as np
import pytest
from scipy import stats

from optical_scale.errors import EvaluationError
from optical_scale.evaluation.language_gap import LanguageGroups
from optical_scale.evaluation.statistics import (
    fit_line,
    holm,
    pareto_front,
    pooled_bootstrap,
    randomisation_tests,
    statistic_weights,
)

GROUPS = LanguageGroups(("de", "fr"), ("sw",))


def test_pooled_bootstrap_has_the_variance_of_runs_and_queries():
    rng = np.random.default_rng(0)
    runs, queries = 8, 400
    matrix = rng.normal(size=(runs, 1)) * 0.5 + rng.normal(size=(1, queries))
    drawn = pooled_bootstrap({"sw": matrix}, resamples=4000)["sw"]
    of_runs, of_queries = matrix.mean(axis=1).var() / runs, matrix.mean(axis=0).var() / queries
    assert drawn.mean() == pytest.approx(matrix.mean(), abs=0.02)
    assert drawn.var() == pytest.approx(of_runs + of_queries, rel=0.1)


def test_pooled_bootstrap_draws_the_same_runs_in_all_languages():
    rng = np.random.default_rng(1)
    shared = rng.normal(size=(5, 1)) * np.ones((5, 300))
    drawn = pooled_bootstrap({"de": shared, "sw": shared}, resamples=200)
    assert drawn["de"] == pytest.approx(drawn["sw"])


def test_pooled_bootstrap_refuses_languages_with_other_runs():
    with pytest.raises(EvaluationError, match="the same runs"):
        pooled_bootstrap({"de": np.ones((2, 3)), "sw": np.ones((1, 3))})


def test_randomisation_agrees_with_all_sign_vectors():
    differences = np.array([0.5, 0.25, -0.125, 0.75, 0.0, 0.3, -0.2, 0.1])
    signs = np.array(list(itertools.product((-1, 1), repeat=len(differences))))
    exact = (np.abs(signs @ differences) >= differences.sum() - 1e-12).mean()
    ((tested,),) = randomisation_tests([{"sw": differences}], None, draws=40_000)
    assert tested.difference == pytest.approx(differences.mean())
    assert tested.p == pytest.approx(exact, abs=0.01)


def test_randomisation_of_the_gap_on_hand_numbers():
    rng = np.random.default_rng(2)
    better_low = {"de": np.zeros(60), "fr": np.zeros(60), "sw": np.full(60, 0.1)}
    noise = {language: rng.normal(size=60) for language in better_low}
    first, second = randomisation_tests([better_low, noise], GROUPS, draws=2000)
    by_name = {row.statistic: row for row in first}
    assert by_name["gap"].difference == pytest.approx(-0.1)
    assert by_name["gap"].p == pytest.approx(1 / 2001)
    assert by_name["high"].p == 1.0
    assert min(row.p for row in second) > 0.005
    assert randomisation_tests([], GROUPS) == []


def test_randomisation_p_values_are_uniform_under_the_null():
    rng = np.random.default_rng(3)
    null = [{"sw": rng.normal(size=40)} for _ in range(400)]
    p = [row.p for (row,) in randomisation_tests(null, None, draws=999)]
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_group_statistics_need_all_their_languages():
    assert set(statistic_weights(["de", "sw"], GROUPS)) == {"all"}
    weights = statistic_weights(["de", "fr", "sw", "xx"], GROUPS)
    assert weights["gap"] == {"de": 0.5, "fr": 0.5, "sw": -1.0}


def test_holm_on_the_numbers_of_a_textbook():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_line_agrees_with_scipy():
    rng = np.random.default_rng(4)
    x = rng.normal(size=12)
    y = 0.3 - 0.7 * x + rng.normal(size=12) * 0.2
    line, known = fit_line(x, y), stats.linregress(x, y)
    assert line is not None
    assert (line.slope, line.intercept) == pytest.approx((known.slope, known.intercept))
    assert line.r_squared == pytest.approx(known.rvalue**2)
    half = stats.t.ppf(0.975, 10) * known.stderr
    assert line.slope_interval == pytest.approx((known.slope - half, known.slope + half))
    middle, band = line.at(np.array([0.0]))
    assert middle[0] == pytest.approx(known.intercept)
    assert band[0] == pytest.approx(stats.t.ppf(0.975, 10) * known.intercept_stderr)


def test_line_needs_three_points_and_two_places():
    assert fit_line(np.array([1.0, 2.0]), np.array([1.0, 2.0])) is None
    assert fit_line(np.ones(4), np.arange(4.0)) is None
    flat = fit_line(np.arange(3.0), np.ones(3))
    assert flat is not None
    assert flat.slope == 0.0
    assert flat.r_squared is None


def test_pareto_front():
    assert pareto_front([1, 2, 3, 2], [0.5, 0.4, 0.9, 0.5]) == [True, False, True, False]
    assert pareto_front([1, 1], [0.5, 0.5]) == [True, True]
