"""``optical-scale upload``: a shard folder to object storage or another file system."""

import argparse
from pathlib import Path

HELP = "copy a shard folder to a URL, its manifest last"
EPILOG = """\
examples:
  to a bucket, with the package s3fs and credentials in the environment:
    optical-scale upload shards/news s3://bucket/news
  training then reads it from there:
    optical-scale train run.yaml 'stream.sources=[{shards: s3://bucket/news}]'
The folder is compared with its manifest first; other shards at the URL are never replaced.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    parser.add_argument("folder", type=Path, help="folder written by `optical-scale convert` or `optical-scale index`")
    parser.add_argument("url", help="folder to make, as fsspec understands it")


def run(arguments: argparse.Namespace) -> int:
    """Copy, and return 0; errors are raised."""
    from optical_scale.shards.upload import upload

    copied = upload(arguments.folder, arguments.url)
    print(f"{arguments.url}: {'copied' if copied else 'the same shards are there already'}")
    return 0
