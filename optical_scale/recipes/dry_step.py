"""One step of a tiny network in the processes of a launcher: whether they find each other, exchange and train."""

import datetime
import socket

import torch
import torch.distributed as dist
from transformers import BertConfig

from optical_scale.backbones.encoder import Encoder, from_config
from optical_scale.batch import PairBatch, TokenBatch
from optical_scale.config.deepspeed import derive_student, derive_teacher
from optical_scale.config.engine import StudentEngine as StudentSettings
from optical_scale.config.engine import TeacherEngine as TeacherSettings
from optical_scale.engine.peers import naming_lost_peers
from optical_scale.engine.start import finish, start
from optical_scale.engine.student import StudentEngine
from optical_scale.engine.teacher import TeacherEngine
from optical_scale.errors import EngineError
from optical_scale.losses.optimal_transport import OptimalTransport
from optical_scale.runtime.world import World
from optical_scale.training.step import StepResult, TrainStep

PATIENCE = datetime.timedelta(minutes=1)
"""How long a process waits for the others."""

_TINY = BertConfig(
    vocab_size=64, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
)  # fmt: skip


def dry_step() -> str:
    """Teacher and student sharded over all processes, one update by optimal transport; one rank of many.

    Returns:
        What happened, in words.

    Raises:
        EngineError: a process is missing, or numbers are not finite.
    """
    world = World.from_env()
    device = start(world, seed=0, patience=PATIENCE)
    with naming_lost_peers():
        hosts: list[str] = [""] * world.size
        dist.all_gather_object(hosts, socket.gethostname())
        result = _step(device)
    if result.problem is not None:
        raise EngineError(f"dry step: {result.problem}")
    told = (
        f"{world.size} processes on {', '.join(sorted(set(hosts)))} exchanged over {dist.get_backend()} and took one "
        f"ZeRO-3 step, loss {result.values['loss']:.4g}"
    )
    finish()
    return told


def _step(device: torch.device) -> StepResult:
    settings = StudentSettings(zero_stage=3, persistent_parameters=0)
    derived = derive_student(settings, micro_batch_pairs=4, accumulation=1)
    frozen = derive_teacher(TeacherSettings(), micro_batch_pairs=4, bucket_elements=settings.bucket_elements)
    teacher = TeacherEngine(_encoder(), frozen, device)
    student = StudentEngine(
        _encoder(), derived, device, learning_rate=1e-3, factor=lambda step: 1.0, weight_decay=0.0, betas=(0.9, 0.98)
    )
    ids_BT = torch.randint(1, _TINY.vocab_size, (4, 8))
    all_BT = torch.ones_like(ids_BT, dtype=torch.bool)
    texts = TokenBatch(ids_BT, all_BT, all_BT)
    objective = OptimalTransport(epsilon=0.05, iterations=10)
    result = TrainStep(teacher, student, objective)([PairBatch(texts, texts, ("en",) * 4, ("dry",) * 4)])
    student.close()
    return result


def _encoder() -> Encoder:
    return Encoder(from_config(_TINY), _TINY.hidden_size, None)
