"""Export of a ZeRO-3 checkpoint against DeepSpeed's `zero_to_fp32`: `python benchmarks/export.py FOLDER [--repeat 3]`.

FOLDER receives (once) XLM-R large with random weights (560 M parameters) and a checkpoint of it, trained for one step
in bf16 by two real processes: 9 GB on disk, about 8 GB of memory while it is written. Then every method runs in a
process of its own, alternated, on a warm page cache. Memory is sampled every 20 ms: RSS counts mapped pages of files,
PSS shares them among processes, anonymous memory leaves them out. Times include imports.
"""

import argparse
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

STEP = Path("run", "checkpoints", "step_000001")
LARGE = {
    "model_type": "xlm-roberta",
    "vocab_size": 250_002,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "max_position_embeddings": 514,
    "pad_token_id": 1,
}
CONVERT = """
import sys
from deepspeed.utils.zero_to_fp32 import convert_zero_checkpoint_to_fp32_state_dict as convert
convert(sys.argv[1], sys.argv[2], tag="student", safe_serialization=True, max_shard_size=sys.argv[3])
"""
OURS = """
import sys
from pathlib import Path
from optical_scale.engine.consolidate import StoredModel
from optical_scale.export.weights import Weight, plan_files, write_files
import torch
model = StoredModel(Path(sys.argv[1]))
output = Path(sys.argv[2])
output.mkdir()
weights = [Weight(stored.names[0], stored, torch.float32) for stored in model.tensors]
write_files(output, plan_files(weights, 5_000_000_000))
model.finish()
"""
STATE_DICT = """
import os, sys, torch
from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint as state_dict
os.makedirs(sys.argv[2])
torch.save(state_dict(sys.argv[1], tag="student"), sys.argv[2] + "/pytorch_model.bin")
"""
LAZY = """
import os, sys
from safetensors.torch import save_file
from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint as state_dict
os.makedirs(sys.argv[2])
for number, (name, lazy) in enumerate(state_dict(sys.argv[1], tag="student", lazy_mode=True).items()):
    save_file({name: lazy.contiguous()}, f"{sys.argv[2]}/{number}.safetensors")
"""


def train_one_step(folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    from optical_scale.backbones.encoder import Encoder, EncoderContract
    from optical_scale.backbones.pretrained import Pretrained
    from optical_scale.backbones.tokenizers import TextTokenizer, train_unigram
    from optical_scale.batch import TokenBatch
    from optical_scale.config.deepspeed import derive_student
    from optical_scale.config.engine import StudentEngine as StudentConfig
    from optical_scale.config.loading import dump
    from optical_scale.config.run import TrainConfig
    from optical_scale.engine.partition import Partition
    from optical_scale.engine.start import finish, start
    from optical_scale.engine.student import StudentEngine
    from optical_scale.runtime.collectives import barrier
    from optical_scale.runtime.files import write_json
    from optical_scale.runtime.world import World
    from optical_scale.training.checkpoint import CheckpointStore
    from optical_scale.training.state import TrainState

    world = World.from_env()
    device = start(world, seed=1)
    if world.is_main:
        train_unigram(["a few words to make a tokenizer"] * 4, folder / "tokenizer", vocabulary=40)
    barrier()
    ids_BT = torch.randint(5, LARGE["vocab_size"], (4, 32))
    ones_BT = torch.ones_like(ids_BT, dtype=torch.bool)
    batch = TokenBatch(ids_BT, ones_BT, ones_BT)
    derived = derive_student(StudentConfig(zero_stage=3, precision="bf16"), micro_batch_pairs=4, accumulation=1)
    backbone = Pretrained(folder / "base").fill(torch.bfloat16, Partition(derived))
    encoder = Encoder(backbone, LARGE["hidden_size"], None)
    engine = StudentEngine(
        encoder,
        derived,
        device,
        learning_rate=1e-4,
        factor=lambda step: 1.0,
        weight_decay=0.0,
        betas=(0.9, 0.98),
    )
    engine.backward(engine.encode(batch).x_BTD.float().square().sum(), 8.0)
    engine.finish_micro_batch()
    engine.train(False)
    with torch.no_grad():
        x_BTD = engine.encode(batch).x_BTD.float().contiguous()
    described = {"kind": "text", "tokenizer": str(folder / "tokenizer"), "architecture": LARGE}
    values = {
        "run": str(folder / "run"),
        "teacher": {"backbone": {"kind": "text", "pretrained": "teacher"}},
        "student": {"backbone": described, "engine": {"zero_stage": 3, "precision": "bf16"}},
        "stream": {"sources": [{"shards": "shards"}], "pairs_per_step": 8, "micro_batch_pairs": 4},
        "objective": {"name": "optimal_transport"},
        "optimization": {"steps": 1},
    }

    def write_rest(target: Path) -> None:
        encoder.backbone.config.save_pretrained(target / "assets")
        TextTokenizer.load(folder / "tokenizer", 128).save(target / "assets")
        EncoderContract("text", 128).write(target / "assets")
        save_file({"x_BTD": x_BTD, "ids_BT": ids_BT, "attention_BT": ones_BT}, target / "reference.safetensors")
        write_json(target / "train_state.json", TrainState(1, {"sw": 8}).to_json())
        (target / "config.yaml").write_text(dump(TrainConfig.model_validate(values)), encoding="utf-8")

    CheckpointStore(folder / "run" / "checkpoints", world, keep=1).save(1, engine.save, write_rest)
    finish()


def free_address() -> dict[str, str]:
    """A place where ranks can meet."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}


def make_base(folder: Path) -> None:
    """A Hugging Face folder with random weights, in float32."""
    import torch

    from optical_scale.backbones.fresh import build_backbone

    torch.manual_seed(1)
    build_backbone(LARGE).save_pretrained(folder / "base", max_shard_size="1GB")


def make_checkpoint(folder: Path) -> None:
    if not (folder / "base").exists():
        make_base(folder)
    address = free_address()
    world = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "DS_ACCELERATOR": "cpu"}
    ranks = [
        subprocess.Popen(
            [sys.executable, __file__, str(folder), "--train"],
            env=os.environ | address | world | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    statuses = [process.wait() for process in ranks]
    if any(statuses):
        sys.exit("the checkpoint could not be written")


def measure(command: list[str]) -> dict[str, float]:
    """Wall-clock and processor seconds, and peaks in MiB of the process."""
    peaks = dict.fromkeys(("rss", "pss", "anonymous"), 0.0)
    began, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        try:
            lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()[1:]
        except OSError:
            continue
        sizes = {name: float(size) / 1024 for name, size, *_ in (line.split() for line in lines)}
        for peak, name in (("rss", "Rss:"), ("pss", "Pss:"), ("anonymous", "Anonymous:")):
            peaks[peak] = max(peaks[peak], sizes.get(name, 0.0))
        time.sleep(0.02)
    if process.returncode:
        sys.exit(f"failed with status {process.returncode}: {command}")
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return peaks | {"seconds": seconds, "cpu": after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime}


def methods(step: Path, output: Path) -> dict[str, list[str]]:
    python = [sys.executable]
    return {
        "ours, consolidation alone": [*python, "-c", OURS, str(step), str(output)],
        "optical-scale export, verified": [
            *python,
            "-m",
            "optical_scale",
            "export",
            str(step),
            "--output",
            str(output),
        ],
        "zero_to_fp32.py, as it is": [*python, str(step / "zero_to_fp32.py"), str(step), str(output), "-t", "student"],
        "zero_to_fp32, safetensors": [*python, "-c", CONVERT, str(step), str(output), "5GB"],
        "zero_to_fp32, shards of 200 MB": [*python, "-c", CONVERT, str(step), str(output), "200MB"],
        "zero_to_fp32, whole state dict": [*python, "-c", STATE_DICT, str(step), str(output)],
        "zero_to_fp32, lazy, file by tensor": [*python, "-c", LAZY, str(step), str(output)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--train", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder: Path = arguments.folder.resolve()
    if arguments.train:
        train_one_step(folder)
        return
    step, output = folder / STEP, folder / "output"
    if not (step / "COMPLETE").exists():
        folder.mkdir(parents=True, exist_ok=True)
        make_checkpoint(folder)
    best: dict[str, dict[str, float]] = {}
    for _ in range(arguments.repeat):
        for name, command in methods(step, output).items():
            found = measure(command)
            best[name] = {key: min(value, best.get(name, found)[key]) for key, value in found.items()}
            print(f"{name:36}" + "".join(f"{key:>12} {value:9.1f}" for key, value in found.items()), flush=True)
            shutil.rmtree(output)
    ours = next(iter(best.values()))
    keys = ("seconds", "cpu", "rss", "pss", "anonymous")
    print("\n| method | seconds | CPU seconds | peak RSS MiB | PSS | anonymous |" + " / ours |" * len(keys))
    print("|---|" + "---:|" * (2 * len(keys)))
    for name, row in best.items():
        cells = [*(f"{row[key]:,.0f}" for key in keys), *(f"{row[key] / ours[key]:.2f}" for key in keys)]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
