"""`optical-scale cache`: encode what a run's teacher will read, once."""

import argparse
import os
from pathlib import Path

HELP = "encode a run's English texts by its teacher once, for all runs that follow"
EPILOG = """examples:
  optical-scale cache configs/distill/multi30k_minilm.yaml teacher.cache.folder=caches/minilm
  optical-scale train configs/distill/multi30k_minilm.yaml teacher.cache.folder=caches/minilm

Training with a cache loads no teacher. Other objectives, students, seeds and languages paired with the same English
texts read the same cache; another teacher, tokenizer or limit is refused. Inner layers are kept where the objective
compares them, and those of teacher.cache.layers=[2,4] for objectives to come.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("config", type=Path, help="the YAML file of the training, with teacher.cache")
    parser.add_argument("overrides", nargs="*", help="dotted overrides such as teacher.cache.precision=int8")
    parser.add_argument(
        "--processes",
        type=int,
        help="processes on this machine; default: one per GPU, or two on CPUs, or one on one core",
    )


def run(arguments: argparse.Namespace) -> int:
    """Encode here if a launcher started this process, otherwise launch the processes first."""
    from optical_scale.config.loading import load
    from optical_scale.config.run import TrainConfig
    from optical_scale.recipes.cache import cache, cache_of

    config = load(TrainConfig, arguments.config, arguments.overrides)
    cache_of(config)
    if "WORLD_SIZE" not in os.environ:
        from optical_scale.engine.launch import default_processes, launch
        from optical_scale.engine.ops import require_communication_op

        processes = arguments.processes or default_processes()
        if processes > 1:
            require_communication_op()
            return launch(processes, "optical_scale", ["cache", str(arguments.config), *arguments.overrides])
    folder = cache(config)
    if os.environ.get("RANK", "0") == "0":
        print(folder)
    return 0
