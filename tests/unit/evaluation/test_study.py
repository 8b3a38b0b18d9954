import csv
import json
import re
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from evaluation.reports import results
from optical_scale.errors import EvaluationError
from optical_scale.evaluation.language_gap import LanguageGroups
from optical_scale.evaluation.study import CellResult, StudyPlan, compare
from optical_scale.evaluation.study_report import markdown, write_study
from optical_scale.evaluation.study_schema import StudyReport
from optical_scale.evaluation.values import Series, read_values, write_values
from tests.support.browser import needs_browser, visit

SIZES = {"small": 10**6, "middle": 3 * 10**6, "large": 10**7}
PAIRS = {"de": 10_000, "fr": 8_000, "sw": 500, "so": 100}
PLAN = StudyPlan(
    title="Objectives <and> sizes",
    axes={"size": list(SIZES), "objective": ["mse", "ot"], "seed": ["0", "1", "2"]},
    replicates="seed",
    scale="size",
    metric="MRR",
    groups=LanguageGroups(("de", "fr"), ("sw", "so")),
    baselines=[{"objective": "mse"}],
)


def cell(size, objective, seed):
    """With ot the low-resource languages are 0.1 better; every tenfold of parameters brings 0.2 everywhere."""
    values = {}
    for number, (language, pairs) in enumerate(PAIRS.items()):
        rng = np.random.default_rng(number)
        level = 0.2 + 0.2 * np.log10(SIZES[size] / 10**6) + 0.1 * np.log10(pairs) / 4
        level += 0.1 * (objective == "ot" and pairs < 1000)
        noise = rng.normal(size=80) * 0.02 + np.random.default_rng(int(seed) + 10).normal() * 0.01
        for metric in ("MRR", "R@1"):
            values[Series("student", "bitext", "text_to_text", "dense", language, metric)] = level + noise
    labels = {"size": size, "objective": objective, "seed": seed}
    return CellResult("-".join(labels.values()), labels, SIZES[size], 60.0, PAIRS, values)


def cells():
    return [cell(size, o, seed) for size in SIZES for o in ("mse", "ot") for seed in ("0", "1", "2")]


@pytest.fixture(scope="module")
def report():
    return compare(PLAN, cells(), ["lost-cell"])


def test_means_deviations_and_gaps(report):
    (row,) = [r for r in report.summaries if r.labels == {"size": "small", "objective": "mse"} and r.metric == "MRR"]
    per_seed = [cell("small", "mse", seed) for seed in "012"]
    means = [next(v.mean() for s, v in c.values.items() if s.language == "sw") for c in per_seed]
    assert row.languages["sw"].mean == pytest.approx(np.mean(means))
    assert row.languages["sw"].deviation == pytest.approx(np.std(means, ddof=1))
    assert row.replicates == 3
    high, low, gap = (row.statistics[name].mean for name in ("high", "low", "gap"))
    assert gap == pytest.approx(high - low)
    assert row.statistics["relative gap"].mean == pytest.approx(gap / high, abs=1e-3)
    interval = row.statistics["gap"].interval
    assert interval is not None
    assert interval[0] < gap < interval[1]
    # Seeds shift all languages alike, so they do not move the gap.
    assert row.statistics["gap"].deviation == pytest.approx(0, abs=1e-12)


def test_every_setting_meets_its_baseline_once(report):
    pairs = {(c.labels["size"], c.baseline["size"], c.labels["objective"]) for c in report.comparisons}
    assert pairs == {(size, size, "ot") for size in SIZES}
    gaps = [c for c in report.comparisons if c.statistic == "gap"]
    assert len(gaps) == 3
    assert all(c.difference == pytest.approx(-0.1) and c.p_holm == pytest.approx(3 * c.p) for c in gaps)
    assert all(c.p == 1.0 for c in report.comparisons if c.statistic == "high")


def test_fits_recover_what_was_planted(report):
    by_objective = {fit.labels["objective"]: fit for fit in report.scale_fits}
    assert len(by_objective["ot"].x) == 9
    assert by_objective["ot"].slope == pytest.approx(0, abs=1e-9)
    mse = next(f for f in report.pairs_fits if f.labels == {"size": "small", "objective": "mse"})
    assert mse.slope == pytest.approx(0.025, abs=0.01)
    assert [p.labels["objective"] for p in report.pareto if p.on_front] == ["ot", "ot", "ot"]


def test_files_say_the_same(report, tmp_path):
    write_study(tmp_path, report)
    names = {"results.json", "results.csv", "cells.csv", "report.md", "report.html"}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert StudyReport.model_validate_json((tmp_path / "results.json").read_bytes()) == report
    rows = list(csv.DictReader((tmp_path / "results.csv").open()))
    assert len(rows) == 2 * 6 * (4 + 5)
    assert {row["what"] for row in rows} == {"language", "statistic"}
    assert len(list(csv.DictReader((tmp_path / "cells.csv").open()))) == 18 * 4 * 2
    table = (tmp_path / "report.md").read_text()
    assert table == markdown(report)
    assert "Not done: lost-cell." in table
    assert "| size | objective | runs | de | fr | sw | so | mean of all |" in table


CORPORA = {"news": {"so": 40}, "bible": {"sw": 30, "tl": 30}, "short": {"sw": 20}, "never run": {}}
GAINS = {"news": 0.1, "bible": -0.1, "short": 0.0}


@pytest.fixture(scope="module")
def over_corpora():
    """With ot 0.1 better in the news and 0.1 worse in the Bible; languages and queries differ; one run is missing."""
    found = []
    for corpus, objective, seed in product(CORPORA, ("mse", "o|t"), "012"):
        rng = np.random.default_rng(int(seed))
        values = {
            Series("student", "bitext", "text_to_text", "dense", language, "MRR"): np.full(queries, 0.5)
            + (GAINS[corpus] if objective == "o|t" else 0.0)
            + rng.normal(size=queries) * 0.01
            for language, queries in CORPORA[corpus].items()
        }
        labels = {"corpus": corpus, "objective": objective, "seed": seed}
        if values and labels != {"corpus": "short", "objective": "mse", "seed": "1"}:
            found.append(CellResult("-".join(labels.values()), labels, 10**6, 60.0, {}, values))
    axes = {"corpus": list(CORPORA), "objective": ["mse", "o|t"], "seed": ["0", "1", "2"]}
    plan = replace(PLAN, axes=axes, groups=None, corpora="corpus")
    return compare(plan, found)


def test_corpora_stand_side_by_side_and_say_what_is_missing(over_corpora, tmp_path):
    write_study(tmp_path, over_corpora)
    table = (tmp_path / "report.md").read_text()
    mean = {tuple(row.labels.values()): row.statistics["all"] for row in over_corpora.summaries}
    shown = {key: f"{spread.mean:.3f} ± {spread.deviation:.3f}" for key, spread in mean.items()}
    first = table.split("\n\n")[2].split("\n")
    assert first[0] == "| objective | news | bible | short | never run |"
    assert first[2] == f"| mse | {shown['news', 'mse']} | {shown['bible', 'mse']} | {shown['short', 'mse']} (2) | – |"
    assert first[3].startswith("| o\\|t | ")
    page = (tmp_path / "report.html").read_text()
    assert f"{shown['short', 'mse']} (2)</td>" in page
    assert "Quality against size: Bitext retrieval, foreign → English, dense, bible" in page
    write_study(tmp_path, over_corpora.model_copy(update={"corpora": None}))
    assert page.count("<table") == (tmp_path / "report.html").read_text().count("<table") + 1


def test_corpora_are_tested_each_on_its_own(over_corpora):
    by_corpus = {row.labels["corpus"]: row for row in over_corpora.comparisons}
    assert len(by_corpus) == len(over_corpora.comparisons) == 3
    for corpus, row in by_corpus.items():
        assert row.baseline == {"corpus": corpus, "objective": "mse"}
        assert row.p_holm == row.p
    assert by_corpus["news"].difference == pytest.approx(0.1)
    assert by_corpus["bible"].difference == pytest.approx(-0.1)
    assert by_corpus["bible"].p < 0.001 < by_corpus["short"].p
    fronts = {tuple(point.labels.values()): point.on_front for point in over_corpora.pareto}
    assert (fronts["news", "o|t"], fronts["bible", "mse"], fronts["bible", "o|t"]) == (True, True, False)


def test_page_is_safe_whole_and_the_same_every_time(report, tmp_path):
    write_study(tmp_path / "one", report)
    write_study(tmp_path / "two", report)
    page = (tmp_path / "one" / "report.html").read_text()
    assert page == (tmp_path / "two" / "report.html").read_text()
    assert "Objectives &lt;and&gt; sizes" in page
    assert page.count("<svg") == 3
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))


@needs_browser
def test_a_browser_sorts_the_tables(report, tmp_path):
    write_study(tmp_path, report)
    script = """
      const table = document.querySelector('table.sortable'), heading = table.querySelectorAll('th[data-column]')[2];
      const column = () => [...table.tBodies[0].rows].map(row => Number(row.cells[2].dataset.value));
      const button = heading.querySelector('button'), seen = [heading.textContent, column()];
      for (let i = 0; i < 2; i++) { button.click(); seen.push(heading.getAttribute('aria-sort'), column()); }
      return JSON.stringify(seen);
    """
    name, before, first, falling, second, rising = json.loads(visit(tmp_path / "report.html", script, tmp_path))
    assert name == "parameters"
    assert (first, second) == ("descending", "ascending")
    assert falling == sorted(before, reverse=True)
    assert rising == sorted(before)


def test_a_metric_nobody_measured_and_no_cells_are_refused():
    with pytest.raises(EvaluationError, match="no cell is done"):
        compare(PLAN, [])
    import dataclasses

    with pytest.raises(EvaluationError, match="found 'nDCG'; expected one of MRR, R@1"):
        compare(dataclasses.replace(PLAN, metric="nDCG"), cells()[:1])


def test_cells_measured_on_other_queries_are_refused():
    import dataclasses

    one, other = cells()[:2]
    short = dataclasses.replace(other, values={series: values[:50] for series, values in other.values.items()})
    with pytest.raises(EvaluationError, match="evaluate all of them on the same data"):
        compare(PLAN, [one, short])


def test_per_query_values_come_back(tmp_path):
    rows = results(0.5, 0)
    write_values(tmp_path, {"a/b": rows})
    first = (tmp_path / "values.npz").read_bytes()
    found = read_values(tmp_path)
    series = Series("a/b", "bitext", "text_to_text", "dense", "de", "MRR")
    assert found[series] == pytest.approx(rows[0].per_query["MRR"])
    write_values(tmp_path, {"a/b": rows})
    assert (tmp_path / "values.npz").read_bytes() == first
    (tmp_path / "values.npz").write_bytes(first[:100])
    with pytest.raises(EvaluationError, match="damaged"):
        read_values(tmp_path)
    with pytest.raises(EvaluationError, match="no such file"):
        read_values(tmp_path / "none")
