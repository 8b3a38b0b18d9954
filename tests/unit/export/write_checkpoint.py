"""Run as a script, one process per rank: trains tiny students for two steps and writes real checkpoints.

python write_checkpoint.py FOLDER NAME:STAGE:PRECISION:KIND:HEAD …
"""

import json
import sys
from functools import partial
from pathlib import Path

import torch

from optical_scale.backbones.encoder import Encoder
from optical_scale.backbones.fresh import build_backbone
from optical_scale.backbones.tokenizers import TextTokenizer, train_unigram
from optical_scale.backbones.vision import ImageTransform, Pixels
from optical_scale.batch import PatchBatch
from optical_scale.config.deepspeed import derive_student
from optical_scale.config.engine import StudentEngine as StudentConfig
from optical_scale.config.loading import dump, load
from optical_scale.config.run import Student, TrainConfig
from optical_scale.engine.start import finish, start
from optical_scale.engine.student import StudentEngine
from optical_scale.recipes.build_models import contract_of, placement, student_encoder
from optical_scale.runtime.collectives import barrier
from optical_scale.runtime.files import write_json
from optical_scale.runtime.world import World
from optical_scale.training.checkpoint import CheckpointStore
from optical_scale.training.reference import TEXTS, write_reference
from optical_scale.training.state import TrainState

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}


def text_parts(run: Path, world: World, mask_punctuation: bool = False):
    if world.is_main:
        train_unigram(list(TEXTS) * 4, run / "tokenizer", vocabulary=200)
    barrier()
    prepare = TextTokenizer.load(run / "tokenizer", 16, "query: ", mask_punctuation=mask_punctuation)
    architecture = SIZES | {"model_type": "xlm-roberta", "vocab_size": len(prepare.tokenizer), "pad_token_id": 1}
    architecture["max_position_embeddings"] = 20
    config = {"kind": "text", "tokenizer": str(run / "tokenizer"), "prefix": "query: ", "architecture": architecture}
    return config | {"mask_punctuation": mask_punctuation}, prepare, prepare(TEXTS)


def words_parts(run: Path, world: World):
    return text_parts(run, world, mask_punctuation=True)


def vision_parts(run: Path, world: World, model_type: str = "vit"):
    architecture = SIZES | {"model_type": model_type, "image_size": 16, "patch_size": 8}
    config = {"kind": "vision", "architecture": architecture}
    return config, ImageTransform(Pixels(16), 8), PatchBatch(torch.rand(3, 3, 16, 16))


def clip_text_parts(run: Path, world: World):
    """CLIP's text tower, whose dense vector is that of the last token."""
    config, prepare, batch = text_parts(run, world)
    config["architecture"] |= {"model_type": "clip_text_model", "bos_token_id": 0, "eos_token_id": 2}
    return config, prepare, batch


def adapted_parts(run: Path, world: World):
    """Low-rank adapters on a pretrained folder."""
    config, prepare, batch = text_parts(run, world)
    if world.is_main:
        build_backbone(config.pop("architecture")).save_pretrained(run / "base")
        prepare.save(run / "base")
    barrier()
    return {"kind": "text", "pretrained": str(run / "base"), "prefix": "query: ", "max_tokens": 16}, prepare, batch


PARTS = {"text": text_parts, "words": words_parts, "vision": vision_parts}
PARTS |= {"lora": adapted_parts, "clip_text": clip_text_parts}
PARTS |= {name: partial(vision_parts, model_type=f"{name}_vision_model") for name in ("clip", "siglip")}
PARTS["dinov2"] = partial(vision_parts, model_type="dinov2_with_registers")


def student(config: dict, engine: StudentConfig, derived: dict, head: int, lora: bool) -> Encoder:
    if lora:
        given = {"backbone": config | {"head": head or None}, "lora": {"rank": 4, "targets": ["query", "output.dense"]}}
        encoder, _ = student_encoder(Student.model_validate(given), list, placement(engine, derived))
        with torch.no_grad():  # as after many steps: B starts at zero
            for name, parameter in encoder.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.1)
        return encoder
    encoder = Encoder(build_backbone(config["architecture"]), 32, head or None)
    # The first parameter, word embeddings or class token, is frozen.
    next(encoder.backbone.embeddings.parameters()).requires_grad_(False)
    return encoder


def write(run: Path, world: World, device: torch.device, stage: int, precision: str, kind: str, head: int) -> None:
    config, prepare, batch = PARTS[kind](run, world)
    how = StudentConfig(zero_stage=stage, precision=precision)
    derived = derive_student(how, micro_batch_pairs=6, accumulation=1)
    encoder = student(config, how, derived, head, kind == "lora")
    engine = StudentEngine(
        encoder,
        derived,
        device,
        learning_rate=1e-2,
        factor=lambda step: 1.0,
        weight_decay=0.0,
        betas=(0.9, 0.98),
    )
    for _ in range(2):
        engine.backward(engine.encode(batch).x_BTD.float().square().sum(), 6.0)
        engine.finish_micro_batch()
    engine.train(False)
    with torch.no_grad():
        states = engine.encode(batch)

    def write_rest(folder: Path) -> None:
        encoder.backbone.config.save_pretrained(folder / "assets")
        prepare.save(folder / "assets")
        contract_of(encoder, prepare).write(folder / "assets")
        write_reference(folder / "reference.safetensors", batch, states)
        write_json(folder / "train_state.json", TrainState(2, {"de": 8, "sw": 4}).to_json())
        (folder / "config.yaml").write_text(dump(train_config(run, config, stage, precision, kind)), encoding="utf-8")

    CheckpointStore(run / "checkpoints", world, keep=2).save(2, engine.save, write_rest)
    engine.close()


def train_config(run: Path, backbone: dict, stage: int, precision: str, kind: str) -> TrainConfig:
    student = {"backbone": backbone, "engine": {"zero_stage": stage, "precision": precision}}
    if kind == "lora":
        student["lora"] = {"rank": 4, "targets": ["query", "output.dense"]}
    values = {
        "run": str(run),
        "teacher": {"backbone": {"kind": "text", "pretrained": "teachers/english"}},
        "student": student,
        "stream": {"sources": [{"shards": "s"}], "pairs_per_step": 6, "micro_batch_pairs": 6},
        "objective": {"name": "optimal_transport"},
        "optimization": {"steps": 2},
    }
    return load(TrainConfig, None, [f"{key}={json.dumps(value)}" for key, value in values.items()])


if __name__ == "__main__":
    world = World.from_env()
    device = start(world, seed=3)
    for specification in sys.argv[2:]:
        name, stage, precision, kind, head = specification.split(":")
        write(Path(sys.argv[1]) / name, world, device, int(stage), precision, kind, int(head))
    finish()
