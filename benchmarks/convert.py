"""Conversion of generated corpora beside a plain webdataset loop: `python benchmarks/convert.py [pairs|images|memory]`.

The loop reads the corpus and hands samples to `webdataset.TarWriter`: no filter, no count, no index, no hash. Ours is
`optical-scale convert` as configured by default (alignment check, blank sides, duplicates) and, as `all rules`, with
bounds and ratio of lengths, and scripts as well. Every measurement is a process of its own; what importing takes is
left out. CPU seconds, user and system, are of the process and its children: the cost per core. Wall seconds say how it
scales, on an idle machine only. Both are the minimum over alternated repetitions.

Where `--peer-python` names an interpreter that has them, two pipelines run as well: OpusFilter's filter step with the
rules of `all rules`, which writes texts and no shards, and img2dataset's resizer and writer, which do not look for
duplicates or check anything.

`memory` runs ours alone at several sizes. Private memory is what all processes together cannot give back (the largest
sum of RssAnon); the table of duplicates lies in a file that the kernel may keep in memory or not (RssFile, RssShmem).
"""

import argparse
import contextlib
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

RULES = {
    "default rules": {},
    "all rules": {
        "max_characters": 1000,
        "min_words": 2,
        "max_words": 200,
        "max_length_ratio": 3.0,
        "scripts": {"sw": ["Latn"]},
    },
}
SIDES = ("en", "sw")


def generate_pairs(folder: Path, pairs: int) -> None:
    """Sentences of 5 to 24 words; no two pairs are equal."""
    words = [f"{head}{middle}{tail}" for head in "bdfgkm" for middle in ("a", "eni", "ola") for tail in "nrst"]
    for side in SIDES:
        with (folder / f"x.{side}").open("w", encoding="utf-8") as file:
            for i in range(pairs):
                file.write(" ".join([str(i), *(words[(i * 7 + j * j) % len(words)] for j in range(5 + i % 20))]) + "\n")


def generate_images(folder: Path, images: int) -> None:
    """JPEG files of 500 x 375 pixels, about 60 kB of noise and gradients, with one caption each."""
    import numpy as np
    from PIL import Image

    (folder / "images").mkdir()
    draw = np.random.default_rng(0)
    slope = np.linspace(0, 160, 500)[None, :, None] + np.linspace(0, 60, 375)[:, None, None]
    for i in range(images):
        noise_HWC = draw.normal(0, 12, (375, 500, 3)) + slope
        Image.fromarray(noise_HWC.clip(0, 255).astype("uint8")).save(folder / "images" / f"{i}.jpg", quality=85)
    (folder / "images.txt").write_text("".join(f"{i}.jpg\n" for i in range(images)))
    (folder / "captions.en").write_text("".join(f"picture number {i}\n" for i in range(images)))


def loop_pairs(folder: Path, output: Path) -> None:
    import webdataset

    with (
        (folder / "x.en").open(encoding="utf-8", newline="\n") as source,
        (folder / "x.sw").open(encoding="utf-8", newline="\n") as target,
        webdataset.TarWriter(str(output)) as writer,
    ):
        for i, sides in enumerate(zip(source, target, strict=True)):
            english, other = (side.rstrip("\n") for side in sides)
            fields = {"language": "sw", "source": english, "target": other, "corpus": "x"}
            writer.write({"__key__": f"x-sw-{i:08d}", "json": fields})


def loop_images(folder: Path, output: Path) -> None:
    """What img2dataset does with an image that it may resize: decode, reduce the short side, encode, write."""
    import io

    import webdataset
    from PIL import Image

    names = (folder / "images.txt").read_text().split()
    captions = (folder / "captions.en").read_text().splitlines()
    with webdataset.TarWriter(str(output)) as writer:
        for i, (name, caption) in enumerate(zip(names, captions, strict=True)):
            with Image.open(folder / "images" / name) as image:
                reduced = image.resize((341, 256), Image.Resampling.BICUBIC)
            packed = io.BytesIO()
            reduced.save(packed, "JPEG", quality=90)
            writer.write({"__key__": f"{i:08d}", "jpg": packed.getvalue(), "txt": caption})


def opusfilter(folder: Path, output: Path) -> None:
    """As `OpusFilter.filter_data` does it: pairs through a chain of generators, each line flushed."""
    from opusfilter.pipeline import FilterPipeline

    rules = [
        {"LengthFilter": {"unit": "char", "min_length": 1, "max_length": 1000}},
        {"LengthFilter": {"unit": "word", "min_length": 2, "max_length": 200}},
        {"LengthRatioFilter": {"unit": "char", "threshold": 3}},
        {"CharacterScoreFilter": {"scripts": ["Latin", "Latin"], "thresholds": [0.5, 0.5]}},
    ]
    with contextlib.ExitStack() as stack:
        sources = [stack.enter_context((folder / f"x.{side}").open(encoding="utf-8")) for side in SIDES]
        results = [stack.enter_context(Path(f"{output}.{side}").open("w", encoding="utf-8")) for side in SIDES]
        pairs = zip(*((line.rstrip() for line in source) for source in sources), strict=True)
        for pair in FilterPipeline.from_config(rules).filter(pairs):
            for text, result in zip(pair, results, strict=True):
                result.write(text + "\n")
                result.flush()


def img2dataset(folder: Path, output: Path) -> None:
    """What a worker of img2dataset does with an image after its download."""
    import io

    import pyarrow
    from img2dataset.resizer import Resizer
    from img2dataset.writer import WebDatasetSampleWriter

    output.mkdir()
    resize = Resizer(256, "keep_ratio", True, encode_quality=90)
    schema = pyarrow.schema([("caption", pyarrow.string()), ("width", pyarrow.int32()), ("height", pyarrow.int32())])
    writer = WebDatasetSampleWriter(0, str(output), True, 5, schema, "jpg")
    names = (folder / "images.txt").read_text().split()
    captions = (folder / "captions.en").read_text().splitlines()
    for i, (name, caption) in enumerate(zip(names, captions, strict=True)):
        image, width, height, *_ = resize(io.BytesIO((folder / "images" / name).read_bytes()))
        writer.write(image, f"{i:08d}", caption, {"caption": caption, "width": width, "height": height})
    writer.close()


def ours(folder: Path, output: Path, kind: str, rules: str, processes: int) -> None:
    from optical_scale.config.convert import ConvertConfig
    from optical_scale.recipes.convert import convert

    corpus: dict[str, Any] = {"format": "moses", "name": "x", "source": "x.en", "target": "x.sw", "language": "sw"}
    if kind == "images":
        pictures = {"short_side": 256, "quality": 90}
        corpus = {"format": "caption_lines", "name": "x", "images": "images", "image_list": "images.txt"}
        corpus |= {"captions": {"en": "captions.en"}, "pictures": pictures}
    values = {"output": output, "folder": folder, "corpora": [corpus], "processes": processes}
    convert(ConvertConfig.model_validate(values | {"filters": RULES[rules]}))


class PeakMemory(threading.Thread):
    """Largest private and mapped memory, in MB, of this process and its children, sampled ten times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.private = self.mapped = 0.0
        self.over = threading.Event()

    def run(self) -> None:
        """Sample until ``over``."""
        own = os.getpid()
        while not self.over.wait(0.1):
            children = Path(f"/proc/{own}/task/{own}/children").read_text().split()
            found = [values for pid in [str(own), *children] if (values := _resident(pid))]
            self.private = max(self.private, sum(private for private, _ in found))
            self.mapped = max(self.mapped, max(mapped for _, mapped in found))


def _resident(pid: str) -> tuple[float, float] | None:
    try:
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        private, file, shared = (float(status[key].split()[0]) / 1e3 for key in ("RssAnon", "RssFile", "RssShmem"))
    except (OSError, KeyError):  # it ended meanwhile
        return None
    return private, file + shared


def _cpu_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def measure(kind: str, method: str, processes: int, folder: Path, output: Path) -> None:
    """In the child: one conversion, its cost as JSON on standard output."""
    if method in PEERS:
        importlib.import_module({"opusfilter": "opusfilter.pipeline", "img2dataset": "img2dataset.writer"}[method])
    else:
        import webdataset  # noqa: F401

        import optical_scale.recipes.convert  # noqa: F401

    memory = PeakMemory()
    memory.start()
    cpu, wall = _cpu_seconds(), time.perf_counter()
    if method in PEERS:
        PEERS[method](folder, output)
    elif method == "loop":
        loop_pairs(folder, output) if kind == "pairs" else loop_images(folder, output)
    else:
        ours(folder, output, kind, method, processes)
    seconds = {"cpu": _cpu_seconds() - cpu, "wall": time.perf_counter() - wall}
    memory.over.set()
    print(json.dumps(seconds | {"private": memory.private, "mapped": memory.mapped}))


PEERS = {"opusfilter": opusfilter, "img2dataset": img2dataset}


def child(kind: str, method: str, processes: int, folder: Path, python: str = sys.executable) -> dict[str, float]:
    """One measurement with an output that vanishes."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        words = ["--child", kind, method, str(processes), str(folder), f"{name}/output"]
        run = subprocess.run([python, __file__, *words], check=True, stdout=subprocess.PIPE)
    result: dict[str, float] = json.loads(run.stdout)
    return result


def compare(kind: str, size: int, processes: list[int], repeats: int, folder: Path, peer_python: str | None) -> None:
    (generate_pairs if kind == "pairs" else generate_images)(folder, size)
    rules = list(RULES) if kind == "pairs" else ["default rules"]
    peers = [({"pairs": "opusfilter", "images": "img2dataset"}[kind], 1)] if peer_python else []
    cells = [("loop", 1), *peers, *((rule, number) for rule in rules for number in processes)]
    python = dict.fromkeys(peers, peer_python or "")
    runs = [
        {cell: child(kind, *cell, folder, python.get(cell, sys.executable)) for cell in cells} for _ in range(repeats)
    ]
    best = {cell: {unit: min(run[cell][unit] for run in runs) for unit in ("cpu", "wall")} for cell in cells}
    print(f"| method | processes | {kind} | CPU us each | times the loop | wall us each | times the loop |")
    print("|---|---|---|---|---|---|---|")
    for cell in cells:
        columns = [
            f"{best[cell][unit] / size * 1e6:.1f} | {best['loop', 1][unit] / best[cell][unit]:.2f}"
            for unit in best[cell]
        ]
        print(f"| {cell[0]} | {cell[1]} | {size:,} | {' | '.join(columns)} |")


def memory(sizes: list[int], processes: list[int], folder: Path) -> None:
    print("| pairs | processes | wall s | us each | private MB | mapped MB |\n|---|---|---|---|---|---|")
    for size in sizes:
        generate_pairs(folder, size)
        for number in processes:
            run = child("pairs", "default rules", number, folder)
            each = run["wall"] / size * 1e6
            print(
                f"| {size:,} | {number} | {run['wall']:.0f} | {each:.1f} | {run['private']:.0f} | {run['mapped']:.0f} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=("pairs", "images", "memory"), default="pairs")
    parser.add_argument("--sizes", type=int, nargs="+", help="pairs or images; several for memory")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to put files; the system's temporary folder by default")
    parser.add_argument("--peer-python", help="an interpreter with opusfilter and img2dataset")
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        kind, method, processes, folder, output = arguments.child
        measure(kind, method, int(processes), Path(folder), Path(output))
        return
    sizes = arguments.sizes or {"pairs": [200_000], "images": [1_000], "memory": [100_000, 1_000_000]}[arguments.part]
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        if arguments.part == "memory":
            memory(sizes, arguments.processes, Path(name))
        else:
            compare(
                arguments.part,
                sizes[0],
                arguments.processes,
                arguments.repeats,
                Path(name),
                arguments.peer_python,
            )


if __name__ == "__main__":
    main()
