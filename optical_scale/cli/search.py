"""`optical-scale search`: search a retrieval collection, write TREC run files, measure them."""

import argparse
from pathlib import Path

HELP = "search a retrieval collection and write TREC run files"
EPILOG = """examples:
  optical-scale search configs/search/xquad_r.yaml
  the lexical baseline alone, without an encoder:
    optical-scale search collection=collections/xquad_r output=runs/bm25 methods=[bm25]
  rerank another system's run:
    optical-scale search configs/search/xquad_r.yaml output=runs/b rerank.de=runs/a/runs/bm25.de.txt
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument(
        "items", nargs="+", metavar="CONFIG.yaml | key=value", help="file with the fields of SearchConfig, and changes"
    )


def run(arguments: argparse.Namespace) -> int:
    """Search, print the table, name the runs."""
    from optical_scale.config.loading import load
    from optical_scale.config.search import SearchConfig
    from optical_scale.errors import ConfigError
    from optical_scale.recipes.search import search, table

    files = [item for item in arguments.items if "=" not in item]
    if len(files) > 1:
        raise ConfigError(f"search: {len(files)} configuration files; expected at most one")
    overrides = [item for item in arguments.items if "=" in item]
    config = load(SearchConfig, Path(files[0]) if files else None, overrides)
    print(table(search(config)))
    print(f"\n{config.output / 'metrics.json'}")
    return 0
