"""Training from folders on disk: read in parts under ZeRO-3, whole otherwise, with adapters or frozen parts."""

import json
import shutil

import pytest
from transformers import AutoConfig, AutoModel

from tests.support.corpus import write_tokenizer
from tests.support.processes import TRAIN, finish, start
from tests.support.runs import Workshop, steps_of, tiny_xlmr

pytestmark = pytest.mark.distributed

TOLERANCE = 1e-5
LORA = {"rank": 4, "alpha": 8, "targets": ["query", "value", "dense"]}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    import torch

    torch.manual_seed(1)
    workshop = Workshop(tmp_path_factory.mktemp("pretrained"))
    base = workshop.folder / "base"
    values = tiny_xlmr(workshop.pieces) | {"num_hidden_layers": 3}
    AutoModel.from_config(AutoConfig.for_model(**values)).save_pretrained(base)
    for path in (workshop.folder / "tokenizer").iterdir():
        shutil.copy(path, base)
    write_tokenizer(workshop.folder / "other", ("sw", "de"))
    return workshop


def train(workshop, name, processes, stage, *, precision="fp32", backbone=None, **student):
    base = str(workshop.folder / "base")
    student["backbone"] = {"kind": "text", "pretrained": base, "max_tokens": 24} | (backbone or {})
    student["engine"] = {"zero_stage": stage, "precision": precision, "persistent_parameters": 100}
    teacher = {"kind": "text", "pretrained": base, "max_tokens": 24}
    path = workshop.config(
        name,
        student=student,
        teacher={"backbone": teacher, "engine": {"zero_stage": 3 if stage == 3 else 0, "precision": precision}},
        checkpoints={"every": 3, "keep": 3},
    )
    finish(start([*TRAIN, path], processes))
    return steps_of(workshop.folder / name, "loss", "gradient_norm")


def close(first, second, tolerance=TOLERANCE):
    assert list(first) == list(second) == list(range(1, 7))
    for step, values in first.items():
        assert second[step] == pytest.approx(values, rel=tolerance), step


def surgery(workshop):
    return {"layers": [0, 2], "tokenizer": str(workshop.folder / "other"), "vocabulary": "translate"}


def test_a_model_read_in_parts_trains_like_one_read_whole(workshop):
    whole = train(workshop, "whole", 1, 0, backbone=surgery(workshop))
    close(whole, train(workshop, "parts", 2, 3, backbone=surgery(workshop)))


def test_adapters_train_alike_at_every_stage_and_continue(workshop):
    alone = train(workshop, "lora_alone", 1, 0, lora=LORA, backbone={"head": 32})
    assert alone[6][0] < alone[1][0]
    close(alone, train(workshop, "lora_parts", 2, 3, lora=LORA, backbone={"head": 32}))
    # The second half again, from the checkpoint of step 3.
    run = workshop.folder / "lora_parts"
    shutil.rmtree(run / "checkpoints" / "step_000006")
    (run / "metrics.jsonl").write_text("")
    finish(start([*TRAIN, workshop.folder / "lora_parts.yaml"], 2))
    again = steps_of(run, "loss", "gradient_norm")
    assert list(again) == [4, 5, 6]
    for step, values in again.items():
        assert alone[step] == pytest.approx(values, rel=TOLERANCE)


def test_frozen_parts_stay_and_their_hashes_with_them(workshop):
    close(
        train(workshop, "frozen_alone", 1, 0, freeze=["embeddings"]),
        train(workshop, "frozen_parts", 2, 3, freeze=["embeddings"]),
    )
    first, last = (
        json.loads((workshop.folder / "frozen_parts" / "checkpoints" / step / "student" / "frozen.json").read_text())
        for step in ("step_000003", "step_000006")
    )
    assert first == last
    assert first
    assert all(name.startswith("backbone.embeddings.") for name in first)
    # Another base under the same name does not go unnoticed.
    alone = workshop.folder / "frozen_alone" / "checkpoints" / "step_000006" / "student" / "frozen.json"
    assert json.loads(alone.read_text()) == first


def test_bf16_is_the_same_read_in_parts(workshop):
    whole = train(workshop, "bf16_whole", 2, 2, precision="bf16")
    close(whole, train(workshop, "bf16_parts", 2, 3, precision="bf16"), tolerance=2e-2)
