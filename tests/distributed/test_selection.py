"""Best checkpoint and early stopping, on two ranks that evaluate together, over several starts of one run."""

import json

import pytest

from tests.support.processes import TRAIN, finish, start
from tests.support.runs import Workshop

pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    return Workshop(tmp_path_factory.mktemp("selection"))


def stands_still(workshop, **checkpoints):
    """So small a rate that no evaluation improves on the first."""
    return workshop.config(
        "still",
        optimization={"steps": 20, "learning_rate": 1e-12},
        evaluation=[{"name": "bitext", "shards": str(workshop.shards), "limit": 9}],
        evaluation_times={"every": 2},
        checkpoints={"keep": 1, "keep_best": "bitext/mrr"} | checkpoints,
    )


def test_ranks_agree_to_stop_early_and_to_go_on(workshop):
    run = workshop.folder / "still"
    outputs = finish(start([*TRAIN, stands_still(workshop, patience=2)], size=2))
    assert "2 evaluations ago: stopping early" in outputs[0]
    folders = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert folders == ["best", "step_000002", "step_000006"]
    assert (run / "checkpoints" / "best").resolve().name == "step_000002"
    state = json.loads((run / "finished.json").read_text())
    assert (state["step"], state["best"]["step"], state["best"]["since"]) == (6, 2, 2)

    finish(start([*TRAIN, stands_still(workshop, patience=2)], size=2))
    assert json.loads((run / "finished.json").read_text())["step"] == 6, "what had ended stays so"
    finish(start([*TRAIN, stands_still(workshop, patience=3)], size=2))
    state = json.loads((run / "finished.json").read_text())
    assert (state["step"], state["best"]["step"], state["best"]["since"]) == (8, 2, 3)
    assert {result["step"] for result in state["results"]} == {0, 2, 4, 6, 8}


def test_a_metric_that_nobody_measures_is_refused_before_the_first_step(workshop):
    path = workshop.config(
        "wrong",
        evaluation=[{"name": "bitext", "shards": str(workshop.shards), "limit": 4}],
        checkpoints={"keep_best": "bitext/mrx"},
    )
    (output,) = finish(start([*TRAIN, path]), status=2)
    assert "checkpoints.keep_best: found 'bitext/mrx'" in output
    assert "expected one of the metrics R@1, R@10, MRR, MAP" in output
