"""`optical-scale export`: a checkpoint becomes a folder for transformers, sentence-transformers and PyLate."""

import argparse
import json
from pathlib import Path

HELP = "write a checkpoint as a Hugging Face, sentence-transformers or PyLate folder"
EPILOG = """examples:
  the newest complete checkpoint of a run:
    optical-scale export runs/multi30k --output exported/multi30k
  one checkpoint, half the size:
    optical-scale export runs/multi30k/checkpoints/step_000100 --output exported/step_100 --dtype bfloat16
  for late interaction with PyLate or sentence-transformers' MultiVectorEncoder:
    optical-scale export runs/multi30k --output exported/late layout=pylate
  only the vocabulary that two languages need (shard folders, or files of one text per line):
    optical-scale export runs/multi30k --output exported/small 'trim_to=[shards/de, shards/fr]'
  with licences of the corpora and the gap of an evaluation in the model card:
    optical-scale export runs/multi30k --output exported/final report=report/report.json corpora.europarl=cc0-1.0
  an image student beside the text student of the same teacher, and an ONNX graph, pushed to the hub:
    optical-scale export runs/images --output exported/both layout=vision_text text=exported/multi30k onnx=true \\
        push_to=me/both

Low-rank adapters are merged. The folder appears only after it has been loaded again and gave the embeddings of the
training engine.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("checkpoint", type=Path, help="run folder, or one step folder below its checkpoints/")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="other fields, such as max_shard_bytes=1000000"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to create")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="of the weights")
    parser.add_argument("--license", help="for the model card, for example apache-2.0")


def run(arguments: argparse.Namespace) -> int:
    """Export, and print how the reloaded folder compares."""
    from optical_scale.config.export import ExportConfig
    from optical_scale.config.loading import load
    from optical_scale.recipes.export import export

    given = {
        "checkpoint": str(arguments.checkpoint),
        "output": str(arguments.output),
        "dtype": arguments.dtype,
        "license": arguments.license,
    }
    fields = [f"{name}={json.dumps(value)}" for name, value in given.items()]
    report = export(load(ExportConfig, None, [*fields, *arguments.overrides]))
    print(f"{report.folder}: {report.parameters:,} parameters in {report.shards} weight files, {report.verification}")
    if report.onnx:
        print(f"onnx/model.onnx: {report.onnx}")
    if report.pushed:
        print(f"pushed to {report.pushed}")
    return 0
