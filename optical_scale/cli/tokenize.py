"""`optical-scale tokenize`: token ids of a run's bitext, once."""

import argparse
from pathlib import Path

HELP = "write the token ids of a run's bitext once, for all runs that follow"
EPILOG = """examples:
  optical-scale tokenize configs/distill/multi30k_minilm.yaml stream.tokens=tokens/multi30k
  optical-scale train configs/distill/multi30k_minilm.yaml stream.tokens=tokens/multi30k

Training gives the same batches with and without. Ids of other shards, tokenizers, prefixes or limits are refused by
train and written anew by this verb.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("config", type=Path, help="the YAML file of the training, with stream.tokens")
    parser.add_argument("overrides", nargs="*", help="dotted overrides such as stream.tokens=FOLDER")
    parser.add_argument("--processes", type=int, default=1, help="processes that tokenise (default: 1)")


def run(arguments: argparse.Namespace) -> int:
    """Write the ids."""
    from optical_scale.config.loading import load
    from optical_scale.config.run import TrainConfig
    from optical_scale.recipes.tokenize import tokenize

    config = load(TrainConfig, arguments.config, arguments.overrides)
    print(f"{tokenize(config, max(1, arguments.processes)):,} pairs tokenised; {config.stream.tokens}")
    return 0
