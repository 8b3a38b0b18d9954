"""Distillation steps beside sentence-transformers' multilingual recipe: `python benchmarks/steps.py OPTIONS`.

    python benchmarks/steps.py --teacher models/all-MiniLM-L6-v2 --shards shards/multi30k/train

Both train the same student (the first and the last layer of the teacher, with its tokenizer, mean pooling) on the
same German pairs, 32 per process and step, with AdamW in float32 on two gloo processes with one thread each, and
minimise the squared distance to the teacher's sentence embedding. Time is counted from the tenth step on, logging,
shuffling and reading included, models and first steps left out.

Theirs is `SentenceTransformerTrainer` with `MSELoss`, under torchrun. The documented recipe embeds the English side
with the teacher before training, and the student reads both sides; `foreign side only` reads what ours reads. The
teacher's own time is added. `--peer-python` names the interpreter; sentence-transformers needs `datasets` to train.
Ours embeds in every step.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

ROWS, FIRST = 32, 10


def write_student(teacher: Path, folder: Path) -> None:
    """A sentence-transformers folder with two of the teacher's layers."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(teacher), device="cpu")
    network = model[0].auto_model
    network.encoder.layer = torch.nn.ModuleList([network.encoder.layer[0], network.encoder.layer[-1]])
    network.config.num_hidden_layers = 2
    model.max_seq_length = 64
    model.save(str(folder))


def write_pairs(shards: Path, language: str, path: Path, count: int) -> None:
    """The first pairs of one language, which the peer reads."""
    from optical_scale.shards.reader import ShardFolder

    pairs = list(ShardFolder(shards).select(language))[:count]
    path.write_text(json.dumps([[pair.source, pair.target] for pair in pairs]), encoding="utf-8")


def peer(folder: Path, teacher: Path, steps: int, both_sides: bool) -> None:
    """In each of the peer's processes: train; rank 0 prints what it took."""
    import pyarrow
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.losses import MSELoss
    from transformers import TrainerCallback

    world = int(os.environ["WORLD_SIZE"])
    pairs = json.loads((folder / "pairs.json").read_text(encoding="utf-8"))[: steps * ROWS * world]
    began = time.perf_counter()
    guide = SentenceTransformer(str(teacher), device="cpu")
    guide.max_seq_length = 64
    # Each process embeds its part; what the trainer's sampler then draws does not matter for the time.
    mine = pairs[int(os.environ["RANK"]) :: world]
    labels = guide.encode([english for english, _ in mine], batch_size=ROWS)
    teacher_seconds = time.perf_counter() - began
    columns: dict[str, Any] = {"non_english": [other for _, other in pairs]}
    if both_sides:
        columns["english"] = [english for english, _ in pairs]
    columns["label"] = [labels[number // world].tolist() for number in range(len(pairs))]

    class Clock(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == FIRST:
                self.first = time.perf_counter()
            self.last = time.perf_counter()

    clock = Clock()
    # A fingerprint is given, since computing one fails with some versions of pyarrow.
    dataset = Dataset(pyarrow.table(columns), fingerprint="pairs")
    model = SentenceTransformer(str(folder / "student"), device="cpu")
    settings = SentenceTransformerTrainingArguments(
        output_dir=str(folder / "peer"), per_device_train_batch_size=ROWS, max_steps=steps, learning_rate=1e-4,
        save_strategy="no", logging_steps=10, report_to=[], use_cpu=True, ddp_backend="gloo", disable_tqdm=True,
    )  # fmt: skip
    trainer = SentenceTransformerTrainer(
        model=model, args=settings, train_dataset=dataset, loss=MSELoss(model), callbacks=[clock]
    )
    trainer.train()
    if os.environ["RANK"] == "0":
        seconds = (clock.last - clock.first) / (steps - FIRST)
        print("RESULT", json.dumps({"step": seconds, "teacher": teacher_seconds / steps}), flush=True)


def ours(folder: Path, name: str, arguments: argparse.Namespace, *overrides: str) -> float:
    """Seconds of a step."""
    text = {"kind": "text", "max_tokens": 64}
    sides = {"teacher": arguments.teacher, "student": folder / "student"}
    config: dict[str, Any] = {
        side: {"backbone": text | {"pretrained": str(path)}, "engine": {"zero_stage": 0}}
        for side, path in sides.items()
    }
    config |= {
        "run": str(folder / name),
        "stream": {
            "sources": [{"shards": str(arguments.shards), "languages": [arguments.language]}],
            "pairs_per_step": 2 * ROWS,
            "micro_batch_pairs": ROWS,
        },
        "objective": {"name": "mse"},
        "optimization": {"steps": arguments.steps, "learning_rate": 1e-4},
        "logging": {"every": FIRST},
    }
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
    words = ["-m", "optical_scale", "train", str(path), *overrides]
    launch([sys.executable, "-m", "torch.distributed.run"], words)
    rows = [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    rates = [row["pairs_per_second_per_rank"] for row in rows if row["event"] == "step" and row["step"] > FIRST]
    return sum(ROWS / rate for rate in rates) / len(rates)


def launch(launcher: list[str], words: list[str]) -> str:
    """Two processes; their output, shown where they fail."""
    command = [*launcher, "--nproc_per_node=2", "--master_port=0", "--rdzv_backend=c10d", "--rdzv_endpoint=localhost:0"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    found = subprocess.run([*command, *words], capture_output=True, text=True, env=environment)
    if found.returncode:
        raise SystemExit(found.stdout + found.stderr)
    return found.stdout


def theirs(folder: Path, arguments: argparse.Namespace, sides: str) -> dict[str, float]:
    words = [
        __file__,
        "--teacher",
        str(arguments.teacher),
        "--steps",
        str(arguments.steps),
        "--child",
        str(folder),
        sides,
    ]
    output = launch([arguments.peer_python, "-m", "torch.distributed.run"], words)
    (line,) = (line for line in output.splitlines() if line.startswith("RESULT"))
    found: dict[str, float] = json.loads(line.removeprefix("RESULT"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", type=Path, required=True, help="a sentence-transformers folder of BERT type")
    parser.add_argument("--shards", type=Path, help="a bitext folder")
    parser.add_argument("--language", default="de")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--repetitions", type=int, default=2)
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--child", nargs=2, metavar=("FOLDER", "SIDES"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        peer(Path(arguments.child[0]), arguments.teacher, arguments.steps, arguments.child[1] == "both")
        return
    arguments.teacher, arguments.shards = arguments.teacher.resolve(), arguments.shards.resolve()
    seconds: dict[str, float] = {}

    def note(name: str, found: float) -> None:
        seconds[name] = min(found, seconds.get(name, float("inf")))

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_student(arguments.teacher, folder / "student")
        write_pairs(arguments.shards, arguments.language, folder / "pairs.json", arguments.steps * 2 * ROWS)
        for repetition in range(arguments.repetitions):
            for sides in ("both", "foreign"):
                found = theirs(folder, arguments, sides)
                note(f"sentence-transformers, {sides}", found["step"] + found["teacher"])
                note(f"sentence-transformers, {sides}, without teacher", found["step"])
            note("ours, plain", ours(folder, f"plain{repetition}", arguments))
            packed = ("student.engine.packed=true", "teacher.engine.packed=true")
            for name, changes in (
                ("bucketing", ("stream.bucketing={}",)),
                ("packed", packed),
                ("packed and bucketing", (*packed, "stream.bucketing={}")),
            ):
                note(f"ours, {name}", ours(folder, f"{name}{repetition}".replace(" ", "_"), arguments, *changes))
    for name, found in seconds.items():
        ratios = [seconds[f"sentence-transformers, {sides}"] / found for sides in ("both", "foreign")]
        print(f"{name:46s}{1e3 * found:8.0f} ms a step, {ratios[0]:5.2f} x documented, {ratios[1]:5.2f} x foreign side")


if __name__ == "__main__":
    main()
