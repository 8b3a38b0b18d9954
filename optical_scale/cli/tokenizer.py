"""`optical-scale tokenizer`: a new vocabulary for corpora that no published one covers."""

import argparse
from pathlib import Path

HELP = "train a unigram tokenizer on the text of shards"
EPILOG = """examples:
  optical-scale tokenizer configs/tokenizer/multi30k.yaml
  optical-scale tokenizer configs/tokenizer/multi30k.yaml vocabulary=16000 temperature=3
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("config", type=Path, help="YAML file with the fields of TokenizerConfig")
    parser.add_argument("overrides", nargs="*", help="dotted overrides such as vocabulary=16000")


def run(arguments: argparse.Namespace) -> int:
    """Train and write the tokenizer."""
    from optical_scale.config.loading import load
    from optical_scale.config.run import TokenizerConfig
    from optical_scale.recipes.tokenizer import tokenizer

    tokenizer(load(TokenizerConfig, arguments.config, arguments.overrides))
    return 0
