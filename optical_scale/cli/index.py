"""``optical-scale index``: webdataset tars of other programs become a shard folder, in place."""

import argparse
from pathlib import Path

HELP = "make existing webdataset tars readable in place, without rewriting them"
EPILOG = """\
examples:
  images that img2dataset downloaded, with captions in English:
    optical-scale index laion --language en
  captions in a field of the JSON, which also names the language:
    optical-scale index images --caption json.text --language-at json.lang
  bitext as JSON, or as two text members of each sample:
    optical-scale index bitext --source json.translation.en --target json.translation.sw --language sw
    optical-scale index bitext --source en.txt --target sw.txt --language sw

A place is the extension of a member, or json. and the path of a field in the member .json. Writes {tar}.index beside
every tar and then manifest.json; verify, inspect and train then read the folder as one written by convert.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    parser.add_argument("folder", type=Path, help="folder of *.tar files")
    parser.add_argument("--name", help="of the corpus (default: the folder's name)")
    languages = parser.add_mutually_exclusive_group(required=True)
    languages.add_argument("--language", metavar="TAG", help="BCP-47 tag of the captions, or of the side not English")
    languages.add_argument("--language-at", metavar="PLACE", help="where every sample says its language")
    parser.add_argument("--caption", metavar="PLACE", help="of the caption or list of captions (default: txt)")
    parser.add_argument("--source", metavar="PLACE", help="of the English side, for bitext")
    parser.add_argument("--target", metavar="PLACE", help="of the other side, for bitext")
    parser.add_argument(
        "--faults",
        choices=["error", "drop"],
        default="error",
        help="samples with missing or damaged parts: stop, or leave out and count (default: error)",
    )
    parser.add_argument("--processes", type=int, default=1, help="that read tars side by side (default: 1)")


def run(arguments: argparse.Namespace) -> int:
    """Write the indexes and the manifest."""
    from optical_scale.recipes.index import index

    index(
        arguments.folder,
        name=arguments.name,
        language=arguments.language,
        language_at=arguments.language_at,
        caption=arguments.caption,
        source=arguments.source,
        target=arguments.target,
        faults=arguments.faults,
        processes=arguments.processes,
    )
    return 0
