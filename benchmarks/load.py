"""A folder into a ZeRO-3 student, read in parts, against `from_pretrained`: `python benchmarks/load.py FOLDER`.

FOLDER receives (once) XLM-R large with random weights (560 M parameters, float32, 2.2 GB). Each method loads it in
bf16 by two processes until every parameter is partitioned; no optimizer is built, so that loading alone is seen.
Memory is sampled every 10 ms and counted from the end of the imports: anonymous memory, and RSS, which also counts
pages of mapped files. The largest of both ranks is shown, and the least of all repetitions.
"""

import argparse
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch
from export import LARGE, free_address, make_base

METHODS = ("ours", "from_pretrained under HfDeepSpeedConfig", "from_pretrained, then partitioned")
CONFIG = {
    "train_micro_batch_size_per_gpu": 1,
    "bf16": {"enabled": True},
    "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
}


def memory() -> dict[str, float]:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    sizes = {name: float(size) / 1024 for name, size, *_ in (line.split() for line in lines)}
    return {"anonymous": sizes["Anonymous:"], "rss": sizes["Rss:"]}


class Peak(threading.Thread):
    """Watches this process's memory."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.start_values, self.peak, self.running = memory(), memory(), True
        self.start()

    def run(self) -> None:
        while self.running:
            self.peak = {name: max(value, self.peak[name]) for name, value in memory().items()}
            time.sleep(0.01)

    def stop(self) -> dict[str, float]:
        self.running = False
        self.join()
        return {name: self.peak[name] - value for name, value in self.start_values.items()}


def load_parts(folder: Path) -> torch.nn.Module:
    from optical_scale.backbones.pretrained import Pretrained
    from optical_scale.engine.partition import Partition

    return Pretrained(folder).fill(torch.bfloat16, Partition(CONFIG))


def load_under_context(folder: Path) -> torch.nn.Module:
    from transformers import AutoModel
    from transformers.integrations import HfDeepSpeedConfig

    alive = HfDeepSpeedConfig(CONFIG)
    model = AutoModel.from_pretrained(folder, dtype=torch.bfloat16, add_pooling_layer=False)
    del alive
    return model


def load_whole(folder: Path) -> torch.nn.Module:
    import deepspeed
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, dtype=torch.bfloat16, add_pooling_layer=False)
    deepspeed.zero.Init(module=model, config_dict_or_path=CONFIG)
    return model


def rank(folder: Path, method: int) -> None:
    import deepspeed
    import transformers

    from optical_scale.engine.start import finish, start
    from optical_scale.runtime.collectives import barrier
    from optical_scale.runtime.world import World

    transformers.utils.logging.set_verbosity_error()
    start(World.from_env(), seed=0)
    assert deepspeed.zero is not None
    assert transformers.AutoModel is not None
    barrier()
    began, peak = time.perf_counter(), Peak()
    model = (load_parts, load_under_context, load_whole)[method](folder)
    seconds, found = time.perf_counter() - began, peak.stop()
    kept = sum(p.ds_tensor.numel() for p in model.parameters()) * 2 / 2**20
    print(f"RESULT {seconds} {found['anonymous']} {found['rss']} {kept}", flush=True)
    finish()


def measure(folder: Path, method: int) -> list[float]:
    world = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "DS_ACCELERATOR": "cpu"}
    # Or glibc keeps freed memory.
    world |= {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
    world |= free_address()
    ranks = [
        subprocess.Popen(
            [sys.executable, __file__, str(folder), "--rank", str(method)],
            env=os.environ | world | {"RANK": str(number), "LOCAL_RANK": str(number)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    outputs = [process.communicate()[0] for process in ranks]
    rows = [
        [float(x) for x in line.split()[1:]] for o in outputs for line in o.splitlines() if line.startswith("RESULT")
    ]
    if len(rows) != 2:
        sys.exit(f"{METHODS[method]} failed")
    return [max(values) for values in zip(*rows, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder: Path = arguments.folder.resolve()
    if arguments.rank is not None:
        rank(folder / "base", arguments.rank)
        return
    if not (folder / "base").exists():
        folder.mkdir(parents=True, exist_ok=True)
        make_base(folder)
    best: dict[int, list[float]] = {}
    for _ in range(arguments.repeat):
        for method in range(len(METHODS)):
            found = measure(folder, method)
            best[method] = [min(pair) for pair in zip(found, best.get(method, found), strict=True)]
    print(f"XLM-R large, {LARGE['num_hidden_layers']} layers; a rank keeps {best[0][3]:,.0f} MiB\n")
    print("| method | seconds | peak anonymous MiB | peak RSS MiB | anonymous / ours |\n|---|---:|---:|---:|---:|")
    for method, (seconds, anonymous, rss, _) in best.items():
        ratio = anonymous / best[0][1]
        print(f"| {METHODS[method]} | {seconds:.1f} | {anonymous:,.0f} | {rss:,.0f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
