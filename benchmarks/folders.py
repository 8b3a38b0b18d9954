"""What describing a shard folder costs as it grows, and indexing foreign tars beside rewriting them.

    python benchmarks/folders.py /tmp/folders --pairs 30000 300000 1000000 --images 20000

Every measured command is a process of its own; memory is its peak resident set. Least of ``--repeat`` alternated runs
on a warm page cache.
"""

import argparse
import io
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import webdataset
from PIL import Image

from optical_scale.records import TextPair
from optical_scale.shards.writer import write_shards

_PER_TAR = 5_000
_WORDS = ["the", "of", "and", "to", "in", "is", "that", "it", "was", "for", "on", "are", "as", "with", "his", "they"]

_TIMED = """
import os, sys, time
start = time.perf_counter()
quiet = [(os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0)]
process = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=quiet)
_, status, usage = os.wait4(process, 0)
assert status == 0
print(time.perf_counter() - start, usage.ru_maxrss)
"""
_COPY = """
import sys, webdataset
from pathlib import Path
source, target = map(Path, sys.argv[1:])
target.mkdir()
for tar in sorted(source.glob("*.tar")):
    with webdataset.TarWriter(str(target / tar.name)) as writer:
        for sample in webdataset.WebDataset([str(tar)], shardshuffle=False):
            writer.write({name: value for name, value in sample.items() if name in ("__key__", "jpg", "txt", "json")})
"""
_READ = """
import io, json, sys, webdataset
from pathlib import Path
from PIL import Image
for tar in sorted(Path(sys.argv[1]).glob("*.tar")):
    for sample in webdataset.WebDataset([str(tar)], shardshuffle=False):
        json.loads(sample["json"]), sample["txt"].decode(), Image.open(io.BytesIO(sample["jpg"])).size
"""


def pairs(number: int) -> Iterator[TextPair]:
    """Sentences of 3 to 29 words."""
    numbers = random.Random(0)
    for i in range(number):
        text = " ".join(numbers.choices(_WORDS, k=numbers.randrange(3, 30)))
        yield TextPair(f"made-sw-{i:08d}", "sw", text, text[::-1], "made")


def write_images(folder: Path, number: int) -> None:
    """Tars as img2dataset writes them: JPEG of 224 x 224 noise of about 20 kB, caption, indented JSON."""
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0)
    kinds = []
    for _ in range(64):
        buffer = io.BytesIO()
        coarse = noise.integers(0, 255, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((224, 224)).save(buffer, "JPEG", quality=95)
        kinds.append(buffer.getvalue())
    for shard in range(-(-number // _PER_TAR)):
        with webdataset.TarWriter(str(folder / f"{shard:05d}.tar")) as writer:
            for i in range(min(_PER_TAR, number - shard * _PER_TAR)):
                facts = {"url": "https://example.org", "caption": "A dog .", "status": "success", "width": 224}
                key = f"{shard:05d}{i:04d}"
                writer.write(
                    {"__key__": key, "jpg": kinds[i % 64], "txt": "A dog .", "json": json.dumps(facts, indent=4)}
                )


def measure(command: list[str]) -> tuple[float, float]:
    """Seconds and peak MiB of a process; started by a small one, because a child begins with its parent's peak."""
    done = subprocess.run([sys.executable, "-c", _TIMED, *command], capture_output=True, text=True, check=True)
    seconds, kibibytes = done.stdout.split()
    return float(seconds), float(kibibytes) / 1024


def least(command: list[str], repeat: int, undo: str = "") -> tuple[float, float]:
    """The fastest of some runs; ``undo`` is a shell command after each."""
    found = []
    for _ in range(repeat):
        found.append(measure(command))
        if undo:
            subprocess.run(undo, shell=True, check=True)
    return min(seconds for seconds, _ in found), max(memory for _, memory in found)


def main() -> None:
    """Generate what is missing, measure, print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pairs", type=int, nargs="+", default=[30_000, 300_000, 1_000_000])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    verb = [sys.executable, "-m", "optical_scale"]
    print("| pairs | GB | inspect, s | peak MiB |\n|---:|---:|---:|---:|")
    for number in arguments.pairs:
        folder = arguments.folder / f"pairs-{number}"
        if not folder.exists():
            write_shards(pairs(number), folder)
        size = sum(path.stat().st_size for path in folder.iterdir())
        seconds, memory = least([*verb, "inspect", str(folder)], arguments.repeat)
        print(f"| {number:,} | {size / 1e9:.2f} | {seconds:.2f} | {memory:,.0f} |", flush=True)
    folder = arguments.folder / f"images-{arguments.images}"
    if not folder.exists():
        write_images(folder, arguments.images)
    copy = arguments.folder / "copy"
    commands = {
        "optical-scale index": (
            [*verb, "index", str(folder), "--language", "en"],
            f"rm {folder}/manifest.json {folder}/*.index",
        ),
        "webdataset loop that reads the same fields": ([sys.executable, "-c", _READ, str(folder)], ""),
        "webdataset loop that rewrites the tars": (
            [sys.executable, "-c", _COPY, str(folder), str(copy)],
            f"rm -r {copy}",
        ),
    }
    print("\n| foreign tars | s | images/s | peak MiB | s / ours |\n|---|---:|---:|---:|---:|")
    ours = 0.0
    for name, (command, undo) in commands.items():
        seconds, memory = least(command, arguments.repeat, undo)
        ours = ours or seconds
        print(f"| {name} | {seconds:.2f} | {arguments.images / seconds:,.0f} | {memory:,.0f} | {seconds / ours:.2f} |")


if __name__ == "__main__":
    main()
