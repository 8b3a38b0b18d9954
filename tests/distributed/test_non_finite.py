"""A loss or gradient that is not finite on one rank leaves the weights of all as they were, at every ZeRO stage."""

import json
import math
import sys

import pytest
import torch
from transformers import BertConfig

from optical_scale.backbones.encoder import Encoder, from_config
from optical_scale.batch import TokenBatch
from optical_scale.config.deepspeed import derive_student
from optical_scale.config.engine import StudentEngine as EngineConfig
from optical_scale.engine.start import finish as finish_engine
from optical_scale.engine.start import start as start_engine
from optical_scale.engine.student import StudentEngine
from optical_scale.runtime.world import World
from tests.support.processes import TRAIN, finish, start
from tests.support.runs import Workshop

pytestmark = pytest.mark.distributed

TINY = BertConfig(
    vocab_size=16,
    hidden_size=8,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=8,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)


def engine(stage, precision):
    torch.manual_seed(0)
    derived = derive_student(EngineConfig(zero_stage=stage, precision=precision), micro_batch_pairs=1, accumulation=1)
    return StudentEngine(
        Encoder(from_config(TINY), 8, None),
        derived,
        torch.device("cpu"),
        learning_rate=0.1,
        factor=lambda step: 1.0,
        weight_decay=0.0,
        betas=(0.9, 0.98),
    )


def update(student, factor):
    ids_BT = torch.tensor([[1, 2, 3]])
    mask_BT = torch.ones_like(ids_BT, dtype=torch.bool)
    states = student.encode(TokenBatch(ids_BT, mask_BT, mask_BT))
    student.backward((states.x_BTD * torch.arange(8)).float().sum() * factor, 1.0)
    return student.finish_micro_batch()


def output_of(student):
    ids_BT = torch.tensor([[4, 2]])
    mask_BT = torch.ones_like(ids_BT, dtype=torch.bool)
    with torch.no_grad():
        return student.encode(TokenBatch(ids_BT, mask_BT, mask_BT)).x_BTD.float()


def leaves_weights_alone():
    world = World.from_env()
    start_engine(world, seed=0)
    for stage in range(4):
        for precision in ("fp32", "bf16"):
            student = engine(stage, precision)
            check(student, world)
            student.close()
    finish_engine()


def check(student, world):
    for bad in (math.nan, math.inf):
        assert update(student, 1.0).finite
        before = output_of(student)
        broken = update(student, bad if world.rank == 1 else 1.0)
        assert not broken.finite
        assert not math.isfinite(broken.gradient_norm)
        torch.testing.assert_close(output_of(student), before, rtol=0, atol=0)
    assert update(student, 1.0).finite
    after = output_of(student)
    assert after.isfinite().all()
    assert not torch.equal(after, before)


def test_every_stage_and_precision_leaves_the_weights():
    call = "from tests.distributed.test_non_finite import *; leaves_weights_alone()"
    finish(start([sys.executable, "-c", call], 2), timeout=120)


def test_a_run_stops_or_goes_on_as_it_is_told(tmp_path):
    """A learning rate beyond all reason makes the loss overflow after a few steps."""
    workshop = Workshop(tmp_path)
    wild = {"steps": 8, "learning_rate": 1e30, "warmup": 0.0, "decay": "constant"}
    path = workshop.config("stops", optimization=wild)
    [output, _] = finish(start([*TRAIN, path], 2), status=2)
    assert "the weights were not updated. Lower the learning rate" in output
    path = workshop.config("goes_on", optimization=wild | {"most_non_finite": 20})
    outputs = finish(start([*TRAIN, path], 2))
    assert "left out, the weights stay: the loss is nan" in outputs[0]
    state = json.loads((workshop.folder / "goes_on/finished.json").read_text())
    assert 0 < state["non_finite"] < 8
    assert state["step"] == 8
