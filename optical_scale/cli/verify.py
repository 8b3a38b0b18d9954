"""``optical-scale verify``: compare a shard folder with its manifest, byte by byte and sample by sample."""

import argparse
from pathlib import Path

HELP = "check that a shard folder is complete and undamaged"
EPILOG = """\
examples:
  after copying shards to another machine:
    optical-scale verify shards/multi30k
Exit status: 0 undamaged, 1 problems found (one per line).
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    parser.add_argument("folder", type=Path, help="folder written by `optical-scale convert` or `optical-scale index`")


def run(arguments: argparse.Namespace) -> int:
    """Print what is wrong, or what is there; 0 if nothing is wrong, else 1."""
    from optical_scale.shards.manifest import read_manifest
    from optical_scale.shards.verify import verify

    problems = verify(arguments.folder)
    for problem in problems:
        print(problem)
    if problems:
        return 1
    manifest = read_manifest(arguments.folder)
    counts = ", ".join(f"{language} {number:,}" for language, number in manifest.counts.items())
    print(f"{arguments.folder}: {manifest.samples:,} samples in {len(manifest.shards)} shards are sound ({counts})")
    return 0
