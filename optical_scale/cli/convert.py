"""``optical-scale convert``: corpora to shards, from a configuration file or from arguments alone."""

import argparse
import json
from pathlib import Path
from typing import Any

from optical_scale.errors import ConfigError

HELP = "turn corpora into shards"
EPILOG = """\
examples:
  one bitext, without a configuration file:
    optical-scale convert --moses train.en train.sw --language sw --name news --output shards/news
  several, each with its language (one --name serves all):
    optical-scale convert --moses a.en a.sw --language sw --moses b.en b.tl --language tl --name web --output shards/web
  a file with corpora and filters, other folders this time:
    optical-scale convert configs/convert/multi30k.yaml folder=../multi30k output=shards/multi30k
  captioned images with phrases and boxes:
    optical-scale convert --entities flickr30k_entities --split train.txt --images flickr30k-images --output shards/f30k
  any field of the configuration can follow as key=value:
    optical-scale convert --moses a.en a.sw --language sw --name a --output shards/a filters.max_length_ratio=3
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    parser.add_argument(
        "items", nargs="*", metavar="CONFIG.yaml | key=value", help="configuration file and changes, side by side"
    )
    parser.add_argument("--output", type=Path, help="folder to create")
    parser.add_argument("--restart", action="store_true", help="forget what an interrupted conversion has done")
    bitext = parser.add_argument_group("bitext without a configuration file")
    bitext.add_argument("--moses", nargs=2, action="append", default=[], metavar=("ENGLISH", "OTHER"), help="two files")
    bitext.add_argument("--language", action="append", default=[], help="BCP-47 tag, one for each --moses")
    bitext.add_argument("--name", action="append", default=[], help="corpus name: one for all, or one for each --moses")
    images = parser.add_argument_group("images without a configuration file (--name and --language apply)")
    images.add_argument("--entities", metavar="FOLDER", help="folder of Sentences/ and Annotations/")
    images.add_argument("--split", metavar="FILE", help="one image id per line")
    images.add_argument("--images", metavar="FOLDER", help="folder of the images, if not FOLDER/images")


def run(arguments: argparse.Namespace) -> int:
    """Convert, and return 0; errors are raised."""
    from optical_scale.config.convert import ConvertConfig
    from optical_scale.config.loading import load
    from optical_scale.recipes.convert import convert
    from optical_scale.recipes.convert_collection import convert_collection
    from optical_scale.recipes.fetch_inputs import fetch_inputs

    files = [item for item in arguments.items if "=" not in item]
    overrides = [item for item in arguments.items if "=" in item]
    corpora = _corpora(arguments)
    if len(files) + bool(corpora) != 1:
        raise ConfigError(
            f"convert: got {len(files)} configuration files and {len(corpora)} corpora as arguments; expected either "
            "one CONFIG.yaml, or corpora given by --moses or --entities"
        )
    if corpora:
        overrides.insert(0, f"corpora={json.dumps(corpora)}")
    if arguments.output:
        overrides.insert(0, f"output={json.dumps(str(arguments.output))}")
    config = load(ConvertConfig, Path(files[0]) if files else None, overrides)
    if config.collection is None:
        convert(config, arguments.restart)
    else:
        fetch_inputs(config)
        convert_collection(config.collection, config.folder, config.output)
    return 0


def _corpora(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The ``corpora`` field that the arguments describe; empty if none was given."""
    if arguments.moses and arguments.entities:
        raise ConfigError("convert: --moses and --entities; one folder holds bitext or images, convert them separately")
    if arguments.entities:
        return [_entities(arguments)]
    pairs, languages, names = arguments.moses, arguments.language, arguments.name
    if len(languages) != len(pairs):
        raise ConfigError(
            f"convert: {len(pairs)} --moses, {len(languages)} --language; expected a language for each pair of files"
        )
    if pairs and len(names) not in (1, len(pairs)):
        raise ConfigError(f"convert: {len(pairs)} --moses, {len(names)} --name; expected one name, or one for each")
    names = names if len(names) == len(pairs) else names * len(pairs)
    return [
        {"format": "moses", "name": name, "source": source, "target": target, "language": language}
        for (source, target), language, name in zip(pairs, languages, names, strict=True)
    ]


def _entities(arguments: argparse.Namespace) -> dict[str, Any]:
    if not arguments.split:
        raise ConfigError("convert: --entities without --split; name the file that lists the image ids")
    if len(arguments.name) > 1:
        raise ConfigError(f"convert: {len(arguments.name)} --name for one --entities; expected one")
    return {
        "format": "flickr30k_entities",
        "name": arguments.name[0] if arguments.name else "flickr30k_entities",
        "path": arguments.entities,
        "split": arguments.split,
        "languages": arguments.language or ["en"],
        "images": arguments.images,
    }
