"""`optical-scale train`: distil, or train a teacher on pairs alone."""

import argparse
import os
from pathlib import Path

HELP = "distil a teacher into a student, or train a student on pairs alone"
EPILOG = """examples:
  optical-scale train configs/distill/multi30k_minilm.yaml
  optical-scale train configs/distill/multi30k_minilm.yaml student.engine.zero_stage=2 --processes 2
  deepspeed launch/train.py --config configs/distill/multi30k_minilm.yaml
  deepspeed --hostfile hosts launch/train.py --config configs/distill/multi30k_minilm.yaml

The same command continues a run that was stopped.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("config", type=Path, help="YAML file with the fields of TrainConfig")
    parser.add_argument("overrides", nargs="*", help="dotted overrides such as optimization.epochs=3")
    parser.add_argument(
        "--processes",
        type=int,
        help="processes on this machine; default: one per GPU, or two on CPUs, or one on one core",
    )


def run(arguments: argparse.Namespace) -> int:
    """Train here if a launcher started this process, otherwise launch the processes first."""
    from optical_scale.config.loading import load
    from optical_scale.config.run import TrainConfig

    config = load(TrainConfig, arguments.config, arguments.overrides)
    if "WORLD_SIZE" not in os.environ:
        from optical_scale.engine.launch import default_processes, launch
        from optical_scale.engine.ops import require_communication_op

        processes = arguments.processes or default_processes()
        if processes > 1:
            require_communication_op()
            return launch(processes, "optical_scale", ["train", str(arguments.config), *arguments.overrides])
    from optical_scale.recipes.train import train

    train(config)
    return 0
