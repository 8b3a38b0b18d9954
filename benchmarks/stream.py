"""The stream against plain webdataset, in one process on the same shards: `python benchmarks/stream.py PART … OPTIONS`.

    python benchmarks/stream.py --shards shards/multi30k/train \
        --source-tokenizer models/all-MiniLM-L6-v2 --target-tokenizer tokenizers/multi30k

Times of `speed` are process CPU seconds, the minimum over alternated repetitions, so that a busy machine slows both
alike; only the ratios are meant to be quoted. `resume` measures wall-clock time from nothing to the first batch.
"""

import argparse
import itertools
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import webdataset

from optical_scale.backbones.tokenizers import TextTokenizer
from optical_scale.batch import PairBatch
from optical_scale.records import TextPair
from optical_scale.runtime.world import World
from optical_scale.shards.index import index_path
from optical_scale.shards.manifest import Manifest, ShardEntry, write_manifest
from optical_scale.shards.reader import ShardFolder
from optical_scale.shards.writer import write_shards
from optical_scale.stream.buckets import Bucketing, Budget
from optical_scale.stream.collate import PairCollator
from optical_scale.stream.forecast import shape, shards_per_node
from optical_scale.stream.loader import StreamLoader
from optical_scale.stream.mixing import Mixture, Portion
from optical_scale.stream.order import SampleOrder
from optical_scale.stream.plan import StepPlan
from optical_scale.stream.strand import make_strand, portions_of


def webdataset_samples(shards: Path, pattern: str = "*.tar") -> webdataset.WebDataset:
    """A bare pipeline: no shuffle, shards split by node as its documentation advises."""
    urls = sorted(str(path.resolve()) for path in shards.glob(pattern))
    return webdataset.WebDataset(urls, shardshuffle=False, nodesplitter=webdataset.split_by_node, empty_check=False)


def to_pair(sample: dict[str, bytes]) -> TextPair:
    fields = json.loads(sample["json"])
    return TextPair(sample["__key__"], fields["language"], fields["source"], fields["target"], fields["corpus"])


def theirs(shards: Path, collate: PairCollator, rows: int, language: str) -> Iterator[PairBatch]:
    samples = webdataset_samples(shards, f"bitext-{language}-*.tar")
    return iter(samples.map(to_pair).batched(rows, collation_fn=collate, partial=False))


def make_loader(
    shards: Path, collate: PairCollator, world: World | None = None, languages: Sequence[str] = (), **settings
) -> StreamLoader:
    folder = ShardFolder(shards)
    sources = [folder.select(language) for language in languages or folder.languages]
    mixture = Mixture(portions_of(sources))
    return StreamLoader([make_strand(sources, collate, mixture, seed=0, **settings)], world=world or World())


def ours(shards: Path, collate: PairCollator, rows: int, language: str) -> Iterator[PairBatch]:
    loader = make_loader(shards, collate, None, [language], pairs_per_step=rows, micro_batch_pairs=rows)
    return (batch for step in loader for batch in step)


def drain(batches: Iterator[PairBatch], count: int) -> float:
    start = time.process_time()
    taken = sum(1 for _ in itertools.islice(batches, count))
    assert taken == count, f"only {taken} batches"
    return time.process_time() - start


class Count(PairCollator):
    """Reads and does not tokenise: what is left is the loaders' own work."""

    def __call__(self, records, epochs=None) -> int:  # type: ignore[override]
        return len(records)


def speed(arguments: argparse.Namespace) -> None:
    """One language, so that both read the same texts; ours shuffles and checks every sample's checksum besides."""
    tokenized = tokenizers(arguments)
    count = Count(tokenized.tokenize_source, tokenize_target=tokenized.tokenize_target)
    given = (arguments.rows, arguments.language)
    for what, collate in (("tokenised", tokenized), ("read only", count)):
        ways: dict[str, Callable[[], Iterator[PairBatch]]] = {
            "webdataset, batched": partial(theirs, arguments.shards, collate, *given),
            "ours, shuffled": partial(ours, arguments.shards, collate, *given),
        }
        seconds = dict.fromkeys(ways, float("inf"))
        for _ in range(arguments.repetitions):
            for name, way in ways.items():
                seconds[name] = min(seconds[name], drain(way(), arguments.batches))
        print(f"\nspeed, {what}: {arguments.batches} batches of {given} pairs, {arguments.repetitions} repetitions")
        first = next(iter(seconds.values()))
        for name, second in seconds.items():
            print(f"{name:22s} {arguments.batches / second:9.1f} batches/CPU second {first / second:6.2f} x webdataset")


def tokenizers(arguments: argparse.Namespace) -> PairCollator:
    return PairCollator(
        TextTokenizer.load(arguments.source_tokenizer, 64),
        tokenize_target=TextTokenizer.load(arguments.target_tokenizer, 64),
    )


class Table:
    """Token counts of every sample in memory."""

    digest = "benchmark"

    def __init__(self, shards: Path, collate: PairCollator) -> None:
        folder = ShardFolder(shards)
        self.tables = [self.count(list(folder.select(language)), collate) for language in folder.languages]

    def count(self, pairs: list[TextPair], collate: PairCollator) -> np.ndarray:
        sides = (
            (collate.tokenize_source, [p.source for p in pairs]),
            (collate.tokenize_target, [p.target for p in pairs]),
        )
        return np.array([tokenize.lengths(texts) for tokenize, texts in sides]).T

    def of(self, source: int, samples: np.ndarray) -> np.ndarray:
        return self.tables[source][samples]


def padding(arguments: argparse.Namespace) -> None:
    """Share of padding tokens over one epoch, as taken and sorted by length."""
    collate = tokenizers(arguments)
    table = Table(arguments.shards, collate)
    print(f"\npadding of one epoch of {sum(map(len, table.tables)):,} pairs in all languages, both sides")
    ways = {
        "64 pairs a step of 256, as drawn": {"micro_batch_pairs": 64},
        "64 pairs, look-ahead 1,024": {"micro_batch_pairs": 64, "bucketing": Bucketing(table, 1024)},
        "64 pairs, look-ahead 4,096": {"micro_batch_pairs": 64, "bucketing": Bucketing(table, 4096)},
        "64 pairs, look-ahead 8,192": {"micro_batch_pairs": 64, "bucketing": Bucketing(table, 8192)},
        "2,400 tokens, look-ahead 4,096": {"bucketing": Bucketing(table, 4096, Budget(tokens=2400), 4)},
        "24,000 n x m, look-ahead 4,096": {"bucketing": Bucketing(table, 4096, Budget(transport=24_000), 4)},
    }
    for name, settings in ways.items():
        plan = make_loader(arguments.shards, collate, pairs_per_step=256, **settings).strands.strands[0].plan
        start = time.process_time()
        found = shape(plan, table, range(plan.steps_per_epoch), 1)
        seconds = time.process_time() - start
        print(
            f"  {name:34s} padding {100 * found.padding:5.2f} %   {found.micro_batches / plan.steps_per_epoch:.1f} "
            f"micro-batches a step   planning {1000 * seconds / plan.steps_per_epoch:.1f} ms a step"
        )


def generated_pairs(count: int) -> Iterator[TextPair]:
    for number in range(count):
        yield TextPair(f"g-sw-{number:08d}", "sw", f"sentence number {number} of many", f"sentensi {number}", "g")


def multiply(folder: Path, output: Path, times: int) -> int:
    """A folder that lists every shard of ``folder`` ``times`` times under new names, as hard links; returns samples."""
    output.mkdir()
    entries = []
    shards = ShardFolder(folder).manifest.shards
    for number, shard in enumerate(shard for _ in range(times) for shard in shards):
        name = f"bitext-sw-{number:06d}.tar"
        os.link(folder / shard.name, output / name)
        os.link(index_path(folder / shard.name), index_path(output / name))
        entries.append(ShardEntry(name, "sw", shard.samples, shard.bytes, shard.sha256))
    samples = sum(entry.samples for entry in entries)
    write_manifest(output, Manifest("bitext", ("g",), tuple(entries), {"sw": samples}))
    return samples


def resume(arguments: argparse.Namespace) -> None:
    """Wall-clock time from an unopened folder to the first batch, at several positions."""
    collate = tokenizers(arguments)
    collate(list(generated_pairs(1)))  # the first call of a tokenizer builds its tables
    with TemporaryDirectory(dir=arguments.scratch) as scratch:
        base, many = Path(scratch) / "base", Path(scratch) / "many"
        write_shards(generated_pairs(100_000), base)
        samples = multiply(base, many, 100)
        steps = samples // 4096
        print(f"\nresume: {samples:,} pairs in {len(list(many.glob('*.tar'))):,} shards, {steps:,} steps of 4,096")
        for share in (0.0, 0.25, 0.5, 0.75, 0.999):
            start = time.perf_counter()
            loader = make_loader(many, collate, pairs_per_step=4096, micro_batch_pairs=64)
            step = int(share * steps)
            drawn = {"sw": step * 4096}
            loader.restore(loader.state() | {"step": step, "draws": step * 4096, "drawn": drawn})
            loader.peek(step, 0)
            print(f"  at {100 * share:5.1f} % of an epoch: first batch after {time.perf_counter() - start:.3f} s")


def uneven(arguments: argparse.Namespace) -> None:
    """Shards of 10, 10 and 4 samples on 1 to 4 ranks: what every rank reads."""
    characters = TextTokenizer.load(arguments.target_tokenizer, 16)
    collate = PairCollator(characters, tokenize_target=characters)
    with TemporaryDirectory(dir=arguments.scratch) as scratch:
        shards = Path(scratch) / "uneven"
        write_shards(generated_pairs(24), shards, 10)
        print("\nuneven: shards of (10, 10, 4) samples; samples read by each rank")
        for size in (1, 2, 3, 4):
            plain, mine, keys = [], [], Counter[str]()
            for rank in range(size):
                os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size)}
                plain.append(sum(1 for _ in webdataset_samples(shards)))
                loader = make_loader(shards, collate, World(rank, size), pairs_per_step=12, micro_batch_pairs=1)
                read = [key for _ in range(2) for batch in loader.take(loader.step) for key in batch.keys]
                keys.update(read)
                mine.append(len(read))
            exact = keys == Counter(pair.key for pair in generated_pairs(24))
            print(f"  {size} ranks: webdataset {plain}   ours {mine}, each sample exactly once: {exact}")
        for name in ("RANK", "WORLD_SIZE"):
            del os.environ[name]


def billions(arguments: argparse.Namespace) -> None:
    """4 billion pairs of 100 languages in 80,000 shards on 4,096 ranks of 512 nodes, of which only sizes exist."""
    pairs = [int(4e9 / (number + 1) / 5.187) for number in range(100)]
    sizes = [[50_000] * (n // 50_000) + [n % 50_000] for n in pairs]
    mixture = Mixture([Portion(f"s{n:02}", f"l{n:02}", count) for n, count in enumerate(pairs)], temperature=3.0)
    print(
        f"\nbillions: {sum(pairs):,} pairs, {sum(map(len, sizes)):,} shards, steps of 131,072, 4,096 ranks of 512 nodes"
    )
    for nodes in (1, 64, 512):
        orders = [SampleOrder(f"s{n:02}", size, 0, nodes) for n, size in enumerate(sizes)]
        plan = StepPlan(mixture, orders, 0, 131_072, 32)
        world = World(1234, 4096)
        spent = []
        for step in (0, *range(20_000, 20_010)):
            start = time.process_time()
            rows = sum(len(plan.rows(step, number)) for number in plan.numbers(step, world))
            spent.append(time.process_time() - start)
        print(
            f"  {nodes:3d} canonical nodes: a rank's {rows} rows planned in {1000 * np.median(spent):.1f} ms a step "
            f"({1000 * max(spent):.0f} ms the first time); {shards_per_node(sizes, 512, nodes):,.0f} shards a node"
        )


PARTS = {"speed": speed, "padding": padding, "resume": resume, "uneven": uneven, "billions": billions}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--shards", type=Path, default=Path("shards/multi30k/train"))
    parser.add_argument("--source-tokenizer", type=Path, default=Path("models/all-MiniLM-L6-v2"))
    parser.add_argument("--target-tokenizer", type=Path, default=Path("tokenizers/multi30k"))
    parser.add_argument("--language", default="de", help="whose shards `speed` reads")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--batches", type=int, default=100)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--scratch", type=Path, help="folder for generated shards; default: the system's")
    arguments = parser.parse_args()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for part in arguments.parts or PARTS:
        PARTS[part](arguments)


if __name__ == "__main__":
    main()
