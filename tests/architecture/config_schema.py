"""JSON schema of every YAML file that a verb reads: ``python -m tests.architecture.config_schema FILE`` writes it."""

import json
import sys
from pathlib import Path

from pydantic.json_schema import models_json_schema

from optical_scale.config.convert import ConvertConfig
from optical_scale.config.export import ExportConfig
from optical_scale.config.launch import Cluster
from optical_scale.config.run import EvaluateConfig, TokenizerConfig, TrainConfig
from optical_scale.config.search import SearchConfig
from optical_scale.config.study import Study

# The folder below configs/, the root model of the files in it.
ROOTS = {
    "convert": ConvertConfig,
    "tokenizer": TokenizerConfig,
    "distill": TrainConfig,
    "evaluate": EvaluateConfig,
    "launch": Cluster,
    "export": ExportConfig,
    "study": Study,
    "search": SearchConfig,
}


def schema_text():
    """One document: ``$defs`` holds the roots and their parts, and a file may be any of the roots."""
    references, schema = models_json_schema(
        [(model, "validation") for model in ROOTS.values()], title="Configuration files of optical_scale"
    )
    schema["anyOf"] = [references[model, "validation"] for model in ROOTS.values()]
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(schema_text(), encoding="utf-8")
