"""A run that reads its teacher from disk follows the run that asks the network: `optical-scale cache`, then `train`."""

import json
import sys

import pytest

from optical_scale.backbones.fresh import build_backbone
from optical_scale.backbones.tokenizers import TextTokenizer
from tests.support.corpus import write_shards
from tests.support.processes import TRAIN, finish, start
from tests.support.runs import Workshop, steps_of, tiny_xlmr

pytestmark = pytest.mark.distributed
TRANSPORT = {"weight": 1.0, "objective": {"name": "optimal_transport", "marginals": "idf"}}
CACHE = (sys.executable, "-m", "optical_scale", "cache")


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    workshop = Workshop(tmp_path_factory.mktemp("cache"))
    folder = workshop.folder / "teacher"
    build_backbone(tiny_xlmr(workshop.pieces)).save_pretrained(folder)
    TextTokenizer.load(workshop.folder / "tokenizer", 24).save(folder)
    workshop.teacher = {
        "backbone": {"pretrained": str(folder), "max_tokens": 24, "prefix": "ba ", "passage_prefix": "do "},
        "reads": "queries",
        "engine": {"zero_stage": 3, "persistent_parameters": 0},
    }
    return workshop


def config(workshop, name, cache=None):
    return workshop.config(
        name,
        teacher=workshop.teacher | ({"cache": cache} if cache else {}),
        objective={"parts": [TRANSPORT, TRANSPORT | {"layers": {"teacher": 1, "student": 1}}]},
        optimization={"steps": 4},
        evaluation=[{"name": "bitext", "shards": str(workshop.shards)}],
    )


@pytest.fixture(scope="module")
def live(workshop):
    finish(start([*TRAIN, config(workshop, "live")], 2))
    return steps_of(workshop.folder / "live", "loss", "gradient_norm")


def test_an_int8_cache_tells_an_error_that_is_small_in_the_run_too(workshop, live):
    cached = config(workshop, "int8", {"folder": str(workshop.folder / "int8_states"), "precision": "int8"})
    finish(start([*CACHE, cached]))
    errors = json.loads((workshop.folder / "int8_states" / "manifest.json").read_text())["errors"]
    assert set(errors) == {f"{name}{of}" for of in ("", " of layer 1") for name in ("vectors", "transport cost")}
    assert all(0 < error < 0.02 for error in errors.values())
    finish(start([*TRAIN, cached], 2))
    for step, (loss, _) in steps_of(workshop.folder / "int8", "loss", "gradient_norm").items():
        assert loss != live[step][0]
        assert loss == pytest.approx(live[step][0], rel=0.02)


def test_cached_and_live_teacher_give_the_same_run(workshop, live):
    cache = {"folder": str(workshop.folder / "states"), "precision": "float32"}
    cached = config(workshop, "cached", cache)
    output = finish(start([*CACHE, cached], 2))
    assert cache["folder"] in output[0]
    finish(start([*TRAIN, cached], 2))
    read = steps_of(workshop.folder / "cached", "loss", "gradient_norm")
    assert len(live) == 4
    for step, values in live.items():
        assert read[step] == pytest.approx(values, rel=1e-5)
    metrics = [(workshop.folder / name / "metrics.jsonl").read_text() for name in ("live", "cached")]
    assert metrics[0].count('"event": "evaluation"') == metrics[1].count('"event": "evaluation"') > 0

    write_shards(workshop.folder / "other", 20, seed=9)
    other = f"stream.sources=[{{shards: {workshop.folder / 'other'}}}]"
    (output,) = finish(start([*TRAIN, cached, f"run={workshop.folder / 'odd'}", other]), status=2)
    assert "it was written for other data" in output
    assert "the text is one of the first of source" in output
    assert not (workshop.folder / "odd" / "metrics.jsonl").exists()

    deeper = "objective.parts.1.layers.teacher=2"
    (output,) = finish(start([*TRAIN, cached, f"run={workshop.folder / 'odd'}", deeper]), status=2)
    assert "the inner layers [1], and the objective compares layer 2" in output
    (output,) = finish(start([*TRAIN, cached, f"run={workshop.folder / 'odd'}", deeper.replace("2", "9")]), status=2)
    assert "asks for layer 9 of the teacher, which has 2" in output
    (output,) = finish(start([*CACHE, cached, "teacher.cache.folder=none", "teacher.cache.layers=[9]"]), status=2)
    assert "layer 9 of the teacher (or teacher.cache.layers does), which has 2" in output
    errors = json.loads((workshop.folder / "states" / "manifest.json").read_text())["errors"]
    assert errors == dict.fromkeys([f"{n}{of}" for of in ("", " of layer 1") for n in ("vectors", "transport cost")], 0)

    (output,) = finish(start([*CACHE, cached]), status=2)
    assert "already exists" in output
    (output,) = finish(
        start([*TRAIN, config(workshop, "unset", cache | {"folder": str(workshop.folder / "none")})]), status=2
    )
    assert "holds no finished cache" in output
