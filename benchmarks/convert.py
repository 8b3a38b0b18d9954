"""Conversion of generated bitext against a plain webdataset loop: `python benchmarks/convert.py [--pairs N] [--ours]`.

Each measurement is a process of its own. Times are CPU seconds of that process, user and system, the minimum over
alternated repetitions, so that a busy machine slows both alike; only the ratio is meant to be quoted. The loop reads
the two files and hands samples to `webdataset.TarWriter`: no filter, no count, no index, no hash. Ours is
`optical-scale convert` as configured by default (alignment check, blank sides, duplicates) and, as `all rules`, with
bounds and ratio of lengths as well. Private memory is what the process cannot give back (RssAnon, the peak over
samples); the table of duplicates lies in a file that the kernel may keep in memory or not (RssFile and RssShmem).
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

METHODS = ("webdataset", "default rules", "all rules")


def generate(folder: Path, pairs: int) -> None:
    """Sentences of 5 to 24 words; no two pairs are equal."""
    words = [f"{head}{middle}{tail}" for head in "bdfgkm" for middle in ("a", "eni", "ola") for tail in "nrst"]
    for side in ("en", "sw"):
        with (folder / f"x.{side}").open("w", encoding="utf-8") as file:
            for i in range(pairs):
                file.write(" ".join([str(i), *(words[(i * 7 + j * j) % len(words)] for j in range(5 + i % 20))]) + "\n")


def peer(folder: Path) -> None:
    import webdataset

    with (
        (folder / "x.en").open(encoding="utf-8", newline="\n") as source,
        (folder / "x.sw").open(encoding="utf-8", newline="\n") as target,
        webdataset.TarWriter(str(folder / "peer.tar")) as writer,
    ):
        for i, sides in enumerate(zip(source, target, strict=True)):
            english, other = (side.rstrip("\n") for side in sides)
            fields = {"language": "sw", "source": english, "target": other, "corpus": "x"}
            writer.write({"__key__": f"x-sw-{i:08d}", "json": fields})


def ours(folder: Path, every_rule: bool) -> None:
    from optical_scale.config.convert import ConvertConfig
    from optical_scale.recipes.convert import convert

    corpus = {"format": "moses", "name": "x", "source": folder / "x.en", "target": folder / "x.sw", "language": "sw"}
    rules = {"max_characters": 1000, "min_words": 2, "max_words": 200, "max_length_ratio": 3.0} if every_rule else {}
    convert(ConvertConfig.model_validate({"output": folder / "shards", "corpora": [corpus], "filters": rules}))


class PeakMemory(threading.Thread):
    """Largest private and shared memory of this process in MB, sampled ten times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.private = self.shared = 0.0
        self.over = threading.Event()

    def run(self) -> None:
        """Sample until ``over``."""
        while not self.over.wait(0.1):
            status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
            private, file, shmem = (float(status[key].split()[0]) / 1e3 for key in ("RssAnon", "RssFile", "RssShmem"))
            self.private, self.shared = max(self.private, private), max(self.shared, file + shmem)


def measure(method: str, folder: Path) -> None:
    """In the child: one conversion, its cost as JSON on standard output. Imports count for neither side."""
    import webdataset  # noqa: F401

    import optical_scale.recipes.convert  # noqa: F401

    memory = PeakMemory()
    memory.start()
    before = resource.getrusage(resource.RUSAGE_SELF)
    peer(folder) if method == "webdataset" else ours(folder, method == "all rules")
    after = resource.getrusage(resource.RUSAGE_SELF)
    memory.over.set()
    seconds = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    print(json.dumps({"seconds": seconds, "private": memory.private, "shared": memory.shared}))


def child(method: str, files: Path) -> dict[str, float]:
    """One measurement with an output folder that vanishes."""
    with tempfile.TemporaryDirectory(dir=files) as name:
        for side in ("en", "sw"):
            (Path(name) / f"x.{side}").symlink_to(files / f"x.{side}")
        command = [sys.executable, __file__, "--child", method, name]
        result: dict[str, float] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--ours", action="store_true", help="only ours, for memory at many pairs")
    parser.add_argument("--folder", type=Path, help="where to put files; the system's temporary folder by default")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        measure(arguments.child[0], Path(arguments.child[1]))
        return
    methods = METHODS[1:2] if arguments.ours else METHODS
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        generate(Path(name), arguments.pairs)
        runs = [{method: child(method, Path(name)) for method in methods} for _ in range(arguments.repeats)]
    print(
        "| method | pairs | CPU s | us/pair | times the loop | private MB | mapped MB |\n|---|---|---|---|---|---|---|"
    )
    seconds = {method: min(run[method]["seconds"] for run in runs) for method in methods}
    for method in methods:
        private, shared = (max(run[method][kind] for run in runs) for kind in ("private", "shared"))
        ratio = f"{seconds['webdataset'] / seconds[method]:.2f}" if "webdataset" in seconds else ""
        print(
            f"| {method} | {arguments.pairs:,} | {seconds[method]:.2f} | {seconds[method] / arguments.pairs * 1e6:.1f} "
            f"| {ratio} | {private:.0f} | {shared:.0f} |"
        )


if __name__ == "__main__":
    main()
