import numpy as np
import pytest

from optical_scale.errors import EvaluationError
from optical_scale.evaluation import ranking
from optical_scale.evaluation.measures import NAMES, chance_levels, measure_run
from optical_scale.evaluation.run_files import in_order, read_run, write_run

ir_measures = pytest.importorskip("ir_measures")


def random_task(seed, topics=40, documents=60):
    """Scores from few values, so that nearly all are tied, and grades from -1 to 3."""
    rng = np.random.default_rng(seed)
    ids = [f"d{number}" for number in range(documents)]
    qrels = {
        f"q{topic}": {name: int(rng.integers(-1, 4)) for name in rng.permutation(ids)[:20]} for topic in range(topics)
    }
    scores = {
        topic: {name: int(rng.integers(0, 5)) / 4 for name in rng.permutation(ids)[: rng.integers(1, documents)]}
        for topic in qrels
    }
    return qrels, scores


@pytest.mark.parametrize("seed", range(5))
def test_metrics_of_tied_runs_equal_those_of_trec_eval_on_the_raw_scores(tmp_path, seed):
    qrels, scores = random_task(seed)
    write_run(tmp_path / "run", {topic: list(found.items()) for topic, found in scores.items()}, "random")
    ours = measure_run(qrels, read_run(tmp_path / "run"))
    trec = {"MAP": "AP", "MRR": "RR"}
    measures = {name: ir_measures.parse_measure(trec.get(name, name)) for name in NAMES}
    rows = {topic: row for row, topic in enumerate(qrels)}
    for name, measure in measures.items():
        for found in ir_measures.iter_calc([measure], qrels, scores):
            assert abs(ours[name][rows[found.query_id]] - found.value) < 1e-9, (name, found.query_id)


@pytest.mark.parametrize("seed", range(5))
def test_metrics_from_ranks_equal_those_of_trec_eval_for_binary_grades(seed):
    qrels, scores = random_task(seed)
    qrels = {topic: {name: int(grade > 1) for name, grade in judged.items()} for topic, judged in qrels.items()}
    run = {topic: in_order({f"d{n}": scores[topic].get(f"d{n}", -1.0) for n in range(60)}) for topic in qrels}
    ranks = [
        np.array([rank for rank, (name, _) in enumerate(run[topic], start=1) if qrels[topic].get(name, 0) > 0])
        for topic in qrels
    ]
    trec = measure_run(qrels, run)
    ours = {
        "MRR": ranking.reciprocal_rank(ranks),
        "MAP": ranking.average_precision(ranks),
        "nDCG@10": ranking.ndcg(ranks, 10),
        "R@10": ranking.recall(ranks, 10),
    }
    for name, values in ours.items():
        np.testing.assert_allclose(values, trec[name], rtol=0, atol=1e-9)


def test_a_topic_without_results_scores_zero():
    values = measure_run({"a": {"d": 1}, "b": {"d": 1}}, {"b": [("d", 1.0)]}, ["MAP", "nDCG@10"])
    assert values["MAP"].tolist() == [0, 1]
    assert measure_run({"a": {"d": 1}}, {"a": []}, ["MAP"])["MAP"].tolist() == [0]
    with pytest.raises(EvaluationError, match="expected nDCG@10"):
        measure_run({"a": {"d": 1}}, {}, ["quality"])


def test_chance_is_the_mean_over_random_orders():
    qrels, _ = random_task(0, topics=3, documents=12)
    qrels = {topic: dict(list(judged.items())[:6]) | {"d0": 1} for topic, judged in qrels.items()}
    names = ("nDCG@10", "MAP", "MRR", "P@10", "R@10")
    rng = np.random.default_rng(1)
    total = dict.fromkeys(names, 0.0)
    for _ in range(1500):
        order = [(f"d{number}", 0.0) for number in rng.permutation(12)]
        for name, values in measure_run(qrels, dict.fromkeys(qrels, order), names).items():
            total[name] += values.mean() / 1500
    for name, level in chance_levels(qrels, 12, names).items():
        assert level == pytest.approx(total[name], abs=0.02), name


@pytest.mark.parametrize(
    ("line", "message"),
    [("q Q0 d 1 x t", "a number"), ("q Q0 d 1 0.5", "expected"), ("q Q0 d 1 1 t\nq Q0 d 2 1 t", "twice")],
)
def test_a_malformed_run_is_refused(tmp_path, line, message):
    (tmp_path / "run").write_text(line)
    with pytest.raises(EvaluationError, match=message):
        read_run(tmp_path / "run")
