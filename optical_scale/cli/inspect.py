"""``optical-scale inspect``: what is in a shard folder."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optical_scale.recipes.inspect import Format

HELP = "describe a shard folder: counts, lengths, tokens by language, images, samples"
EPILOG = """\
examples:
  optical-scale inspect shards/multi30k
  how much two vocabularies break the languages up, as a page with plots:
    optical-scale inspect shards/multi30k --tokenizer models/teacher --tokenizer tokenizers/sw --output multi30k.html
  for programs (the fields are in docs/data.md):
    optical-scale inspect shards/multi30k --limit 1000 --format json

Counts come from the manifest; lengths, tokens and sizes from at most --limit samples of each language.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    parser.add_argument("folder", type=Path, help="folder written by `optical-scale convert` or `optical-scale index`")
    parser.add_argument(
        "--tokenizer",
        type=Path,
        action="append",
        default=[],
        metavar="PATH",
        help="folder of a model, or a tokenizer.json; may be repeated",
    )
    parser.add_argument(
        "--format", choices=["text", "json", "html"], help="default: what --output ends in, otherwise text"
    )
    parser.add_argument("--output", type=Path, help="file to write, whole or not at all (default: standard output)")
    parser.add_argument("--samples", type=int, default=5, help="shown of each language; of images in all (default: 5)")
    parser.add_argument(
        "--limit", type=int, default=20_000, help="most samples read of a language; of images in all (default: 20000)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the choice of samples (default: 0)")


def run(arguments: argparse.Namespace) -> int:
    """Print or write the description."""
    from optical_scale.recipes.inspect import inspect, write_inspection

    text = inspect(
        arguments.folder,
        tokenizers=arguments.tokenizer,
        form=arguments.format or _form(arguments.output),
        samples=arguments.samples,
        limit=arguments.limit,
        seed=arguments.seed,
    )
    if arguments.output is None:
        print(text, end="")
    else:
        write_inspection(arguments.output, text)
    return 0


def _form(output: Path | None) -> "Format":
    suffix = "" if output is None else output.suffix.lower()
    return "html" if suffix in (".html", ".htm") else "json" if suffix == ".json" else "text"
