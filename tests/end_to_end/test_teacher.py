"""A late-interaction teacher: queries with scored negatives become shards, train one encoder of both sides, export."""

import json
import signal

import pytest

from optical_scale.config.convert import ConvertConfig
from optical_scale.config.export import ExportConfig
from optical_scale.recipes.convert import convert
from optical_scale.recipes.export import export
from optical_scale.runtime.stopping import STOPPED
from tests.end_to_end.test_train_resume import interrupt
from tests.support.corpus import sentences, word
from tests.support.processes import TRAIN, finish, start
from tests.support.runs import Workshop, steps_of

pytestmark = pytest.mark.end_to_end


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """Queries are the first words of their passages; negatives share some words, and score as many as they share.

    Every third query has one negative only.
    """
    workshop = Workshop(tmp_path_factory.mktemp("teacher"), pairs=4)
    rows = []
    for number, meanings in enumerate(sentences(48)):
        others = [[*meanings[:shared], *(m + 1 for m in meanings[shared:])] for shared in (2, 1, 0)]
        passage, *negatives = [" ".join(word("en", m % 40) for m in text) for text in (meanings, *others)]
        query = " ".join(word("en", m) for m in meanings[:3])
        most = 3 if number % 3 else 1
        rows.append(
            {"query": query, "pos": passage, "neg": negatives[:most], "scores": [3.0, 2.0, 1.0, 0.0][: 1 + most]}
        )
    path = workshop.folder / "lists.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    corpus = {"format": "lists", "name": "l", "language": "en", "path": str(path), "scores": ["scores"]}
    convert(ConvertConfig.model_validate({"output": workshop.folder / "lists", "corpora": [corpus]}))
    return workshop


def config(workshop, run, dropout=0.1, engine=None, **stream):
    backbone = workshop.backbone(dropout) | {"head": 16, "prefix": "q: ", "passage_prefix": "d: "}
    late = {"name": "contrastive", "dense": 0, "late_interaction": 1, "symmetric": False}
    parts = [
        {"weight": 1.0, "objective": late},
        {"weight": 0.5, "objective": {"name": "score_kl"}},
        {"weight": 0.1, "objective": {"name": "margin_mse", "scores": "dense"}},
    ]
    shards = {"sources": [{"shards": str(workshop.folder / "lists")}], "negatives": 2, "pairs_per_step": 8}
    return workshop.config(
        run,
        teacher=None,
        student={"backbone": backbone, "engine": engine or {}},
        stream=shards | {"micro_batch_pairs": 4} | stream,
        objective={"name": "mixture", "parts": parts},
        optimization={"steps": 15},
        checkpoints={"every": 4},
        evaluation=[{"name": "bitext", "shards": str(workshop.folder / "lists"), "limit": 8}],
    )


def test_a_teacher_learns_and_continues_exactly(workshop, tmp_path):
    finish(start([*TRAIN, config(workshop, "smooth")]))
    command = [*TRAIN, config(workshop, "rough")]
    status, output = interrupt(command, workshop.folder / "rough", 3, signal.SIGTERM)
    assert status == STOPPED, output
    finish(start(command))
    names = ("loss", "contrastive", "score_kl", "margin_mse", "same_first", "same_order", "in_batch_accuracy")
    smooth = steps_of(workshop.folder / "smooth", *names)
    assert steps_of(workshop.folder / "rough", *names) == smooth
    assert smooth[15][0] < smooth[1][0]
    report = export(ExportConfig(checkpoint=workshop.folder / "smooth", output=tmp_path / "model", layout="pylate"))
    assert report.verification.difference == 0.0
    contract = json.loads((tmp_path / "model" / "encoder.json").read_text())
    assert (contract["prefix"], contract["passage_prefix"]) == ("q: ", "d: ")


@pytest.mark.distributed
def test_two_processes_at_stage_3_are_one(workshop):
    """A micro-batch of one process is that of two together, whose numbers of negatives differ."""
    finish(start([*TRAIN, config(workshop, "alone", 0.0, {"zero_stage": 0}, micro_batch_pairs=8)]))
    finish(start([*TRAIN, config(workshop, "both", 0.0, {"zero_stage": 3})], 2))
    alone, both = (steps_of(workshop.folder / run, "loss", "gradient_norm") for run in ("alone", "both"))
    for step in range(1, 7):
        assert both[step] == pytest.approx(alone[step], rel=2e-5), f"loss and gradient norm of step {step}"


def test_a_budget_counts_negatives(workshop):
    how = {"tokens": 400, "lanes": 2, "look_ahead": 16}
    finish(start([*TRAIN, config(workshop, "budget", micro_batch_pairs=None, bucketing=how)]))
    assert len(steps_of(workshop.folder / "budget", "loss")) == 15


def test_negatives_that_are_not_there_are_noticed_at_the_start(workshop):
    path = config(workshop, "none", sources=[{"shards": str(workshop.shards)}])
    (output,) = finish(start([*TRAIN, path]), status=2)
    assert "stream.negatives is 2, but the first 100 pairs of" in output
