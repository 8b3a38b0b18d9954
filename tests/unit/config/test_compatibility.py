import copy

import pytest

from optical_scale.config.compatibility import check_resumable
from optical_scale.config.run import TrainConfig
from optical_scale.errors import ResumeError

BASE = {
    "run": "runs/a",
    "teacher": {"backbone": {"kind": "text", "pretrained": "models/t"}},
    "student": {"backbone": {"kind": "text", "pretrained": "models/s"}},
    "stream": {"sources": [{"shards": "s"}], "pairs_per_step": 8, "micro_batch_pairs": 4},
    "objective": {"name": "optimal_transport"},
    "optimization": {"steps": 10},
}


def changed(path, value):
    values = copy.deepcopy(BASE)
    place = values
    *parents, last = path.split(".")
    for name in parents:
        place = place.setdefault(name, {})
    place[last] = value
    return TrainConfig.model_validate(values).model_dump(mode="json")


def saved():
    return TrainConfig.model_validate(BASE).model_dump(mode="json")


def test_the_same_configuration_continues():
    check_resumable(saved(), saved())


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("run", "elsewhere"),
        ("optimization.steps", 20),
        ("logging.every", 1),
        ("checkpoints.keep", 5),
        ("stream.workers", 2),
        ("stream.micro_batch_pairs", 2),
        ("evaluation", [{"name": "bitext", "shards": "v"}]),
        ("evaluation_times.every", 3),
        ("teacher.engine.zero_stage", 0),
        ("student.engine.zero_stage", 2),
        ("student.engine.activation_checkpointing", True),
        ("student.engine.persistent_parameters", 0),
    ],
)
def test_what_does_not_change_the_gradient_may_change(path, value):
    assert changed(path, value) != saved()
    check_resumable(saved(), changed(path, value))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("seed", 1, r"seed: was 0, is 1"),
        ("optimization.learning_rate", 1e-3, r"optimization\.learning_rate: was 0\.0005, is 0\.001"),
        ("stream.pairs_per_step", 16, r"stream\.pairs_per_step: was 8, is 16"),
        ("stream.sources", [{"shards": "other"}], r"stream\.sources: was .*'s'.*, is .*'other'"),
        ("student.engine.precision", "bf16", r"student\.engine\.precision: was 'fp32', is 'bf16'"),
        ("student.backbone.max_tokens", 32, r"student\.backbone\.max_tokens: was 128, is 32"),
        ("objective", {"name": "mse"}, r"objective\.epsilon: was 0\.02, is None"),
        ("teacher", None, r"teacher: was \{.*\}, is None"),
        ("student.engine.deepspeed_extra", {"aio": {}}, r"student\.engine\.deepspeed_extra\.aio: was None, is \{\}"),
    ],
)
def test_what_changes_the_gradient_may_not(path, value, message):
    with pytest.raises(ResumeError, match=message):
        check_resumable(saved(), changed(path, value))


def test_every_difference_is_named():
    present = changed("seed", 1)
    present["optimization"]["weight_decay"] = 0.5
    with pytest.raises(ResumeError, match=r"(?s)optimization\.weight_decay: was 0\.01, is 0\.5.*seed: was 0, is 1"):
        check_resumable(saved(), present)


def test_a_longer_name_is_not_an_allowed_one():
    with pytest.raises(ResumeError, match="runner: was 1, is 2"):
        check_resumable({"run": "a", "runner": 1}, {"run": "b", "runner": 2})


def test_a_cache_may_be_asked_for_more_layers():
    narrow, wide = (changed("teacher.cache", {"folder": "c", "layers": layers}) for layers in ([], [1]))
    check_resumable(narrow, wide)
    with pytest.raises(ResumeError, match=r"teacher\.cache\.folder: was 'c', is 'd'"):
        check_resumable(narrow, changed("teacher.cache", {"folder": "d"}))
