"""Memory planned and memory measured: `python benchmarks/plan_memory.py --tokenizer FOLDER`.

    python benchmarks/plan_memory.py --tokenizer tokenizers/multi30k

Real trainings of four steps on CPUs, one or two processes, networks from scratch. While they run, the private memory of
every process (RssAnon) is read 50 times a second. What a training of a tiny network takes is subtracted, so that
libraries, loaders and tokenizers do not count; the plan of the tiny network is subtracted from the plan likewise. All
texts are cut to the backbone's limit, and long enough to reach it. glibc is told to return freed memory at once.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from optical_scale.config.loading import load
from optical_scale.config.run import TrainConfig
from optical_scale.recipes.plan_memory import MemoryPlan

TOKENS = 64
TINY = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
NETWORK = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 6, "num_attention_heads": 12}

# Name, processes, fields of student.engine, other fields; the student has 6 layers of width 768.
CASES: list[tuple[str, int, dict[str, Any], dict[str, Any]]] = [
    ("fp32, stage 0", 1, {"zero_stage": 0}, {}),
    ("fp32, stage 0, 64 pairs", 1, {"zero_stage": 0}, {"pairs": 64}),
    ("fp32, stage 0, 64 pairs, recomputed", 1, {"zero_stage": 0, "activation_checkpointing": True}, {"pairs": 64}),
    ("fp32, stage 1", 2, {"zero_stage": 1}, {}),
    ("fp32, stage 2", 2, {"zero_stage": 2}, {}),
    ("fp32, stage 3", 2, {"zero_stage": 3}, {}),
    ("bf16, stage 0", 1, {"zero_stage": 0, "precision": "bf16"}, {}),
    ("bf16, stage 1", 1, {"zero_stage": 1, "precision": "bf16"}, {}),
    ("bf16, stage 2", 2, {"zero_stage": 2, "precision": "bf16"}, {}),
    ("bf16, stage 3", 2, {"zero_stage": 3, "precision": "bf16"}, {}),
    ("bf16, stage 3, optimizer on CPU", 1, {"zero_stage": 3, "precision": "bf16", "offload_optimizer": "cpu"}, {}),
    ("fp32, stage 0, embeddings frozen", 1, {"zero_stage": 0}, {"freeze": ["embeddings"]}),
    ("fp32, stage 0, contrastive, 7 negatives", 1, {"zero_stage": 0}, {"negatives": 7, "pairs": 8}),
]


def configuration(folder: Path, arguments: argparse.Namespace, network: dict[str, Any], case: Any) -> Path:
    """Write the configuration of one training."""
    _, ranks, engine, extra = case
    backbone = {
        "kind": "text",
        "architecture": {"model_type": "xlm-roberta", "max_position_embeddings": TOKENS + 8} | network,
        "tokenizer": str(arguments.tokenizer),
        "max_tokens": TOKENS,
    }
    pairs, negatives = extra.get("pairs", 16), extra.get("negatives", 0)
    values: dict[str, Any] = {
        "run": str(folder / "run"),
        "teacher": None if negatives else {"backbone": backbone, "engine": {"zero_stage": 3}},
        "student": {"backbone": backbone, "engine": engine, "freeze": extra.get("freeze", [])},
        "stream": {
            "sources": [{"shards": str(folder.parent / ("lists" if negatives else "pairs"))}],
            "pairs_per_step": pairs * ranks,
            "micro_batch_pairs": pairs,
            "negatives": negatives,
        },
        "objective": {"name": "contrastive"} if negatives else {"name": "optimal_transport", "epsilon": 0.05},
        "optimization": {"steps": 4, "learning_rate": 1e-4},
        "checkpoints": {"at_start": False},
        "logging": {"every": 1},
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "train.yaml"
    path.write_text(json.dumps(values), encoding="utf-8")  # JSON is YAML
    return path


def write_texts(folder: Path) -> None:
    """Shards of pairs and of queries with negatives, all longer than the limit."""
    draw = random.Random(0)
    words = [f"word{number}" for number in range(50)]
    texts = [" ".join(draw.choices(words, k=2 * TOKENS)) for _ in range(600)]
    lists = [{"query": texts[n], "pos": [texts[n - 1]], "neg": texts[n + 1 : n + 8]} for n in range(590)]
    (folder / "lists.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lists), encoding="utf-8")
    (folder / "en.txt").write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    (folder / "de.txt").write_text("".join(f"{text}\n" for text in reversed(texts)), encoding="utf-8")
    corpora = {
        "pairs": {"format": "moses", "language": "de", "source": "en.txt", "target": "de.txt"},
        "lists": {"format": "lists", "language": "en", "path": "lists.jsonl"},
    }
    for name, corpus in corpora.items():
        config = folder / f"{name}.yaml"
        told = {"output": str(folder / name), "folder": str(folder), "corpora": [corpus | {"name": name}]}
        config.write_text(json.dumps(told), encoding="utf-8")
        subprocess.run([sys.executable, "-m", "optical_scale", "convert", str(config)], check=True)


def peak(path: Path, ranks: int) -> int:
    """Largest private memory of one process of a training, in bytes."""
    words = ["-m", "optical_scale", "train", str(path)]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1",
    }  # fmt: skip
    launcher = ["-m", "torch.distributed.run", f"--nproc_per_node={ranks}", "--master_port=0", "--rdzv_backend=c10d"]
    command = [sys.executable, *launcher, "--rdzv_endpoint=localhost:0", *words]
    with (path.parent / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        highest = 0
        while process.poll() is None:
            highest = max([highest, *(private(child) for child in children(process.pid))])
            time.sleep(0.02)
    if process.returncode:
        raise SystemExit((path.parent / "log").read_text())
    return highest


def children(parent: int) -> list[int]:
    """Process numbers of direct children, which are the ranks."""
    try:
        return [int(word) for word in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
    except OSError:
        return []


def private(process: int) -> int:
    """RssAnon in bytes, 0 once the process has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:")), 0)


def planned(path: Path, ranks: int) -> int:
    """Bytes of a rank; without a GPU the host's part is on the same side."""
    plan = MemoryPlan(load(TrainConfig, path))
    memory = plan.memory(plan.layout(ranks))
    return memory.total + memory.host


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--only", help="cases whose name contains this")
    arguments = parser.parse_args()
    arguments.tokenizer = arguments.tokenizer.resolve()
    cases = [case for case in CASES if not arguments.only or arguments.only in case[0]]
    print("| training | processes | planned MiB | measured MiB | measured / planned |\n|---|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_texts(folder)
        for number, case in enumerate(cases):
            found = []
            for name, network in (("tiny", TINY), ("large", NETWORK)):
                path = configuration(folder / f"{number}{name}", arguments, network, case)
                found.append((planned(path, case[1]), peak(path, case[1])))
            (tiny_plan, tiny), (plan, measured) = found
            plan, measured = plan - tiny_plan, measured - tiny
            print(
                f"| {case[0]} | {case[1]} | {plan / 2**20:,.0f} | {measured / 2**20:,.0f} | {measured / plan:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
