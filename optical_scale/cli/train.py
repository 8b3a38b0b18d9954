"""`optical-scale train`: distil, or train a teacher on pairs alone."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from optical_scale.runtime.stopping import STOPPED, StopRequests

if TYPE_CHECKING:
    from optical_scale.recipes.rehearse import Rehearsal

HELP = "distil a teacher into a student, or train a student on pairs alone"
EPILOG = """examples:
  optical-scale train configs/distill/multi30k_minilm.yaml
  optical-scale train configs/distill/multi30k_minilm.yaml student.engine.zero_stage=2 --processes 2
  see that a large job starts, and what a step costs, before it waits in a queue:
    optical-scale train configs/distill/multi30k_minilm.yaml --rehearse 2
  deepspeed launch/train.py --config configs/distill/multi30k_minilm.yaml
  deepspeed --hostfile hosts launch/train.py --config configs/distill/multi30k_minilm.yaml

SIGTERM or SIGUSR1 asks a run to stop after a checkpoint. The same command continues it.

Exit status: 0 when the run is at its end, 75 when it was asked to stop before, 2 for a mistake that a message explains.
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
    parser.add_argument(
        "--rehearse",
        type=int,
        metavar="STEPS",
        help="run only the first STEPS steps, print what each part costs in seconds and memory, and write nothing",
    )


def run(arguments: argparse.Namespace) -> int:
    """Train here if a launcher started this process, otherwise launch the processes first."""
    if arguments.rehearse:
        return _run(arguments, None)
    with StopRequests() as requests:
        return _run(arguments, requests)


def _run(arguments: argparse.Namespace, requests: StopRequests | None) -> int:
    from optical_scale.config.loading import load
    from optical_scale.config.run import TrainConfig

    config = load(TrainConfig, arguments.config, arguments.overrides)
    if "WORLD_SIZE" not in os.environ:
        from optical_scale.config.deepspeed import check_batches
        from optical_scale.engine.launch import default_processes, launch
        from optical_scale.engine.ops import require_communication_op

        processes = arguments.processes or default_processes()
        check_batches(config, processes)
        if processes > 1:
            require_communication_op()
            words = ["train", str(arguments.config), *arguments.overrides]
            words += [f"--rehearse={arguments.rehearse}"] if arguments.rehearse else []
            return launch(processes, "optical_scale", words, requests)
    if requests is None:
        from optical_scale.recipes.rehearse import rehearse

        _print(rehearse(config, arguments.rehearse))
        return 0
    from optical_scale.recipes.train import train

    return 0 if train(config, requests) else STOPPED


def _print(found: "Rehearsal") -> None:
    if os.environ.get("RANK", "0") != "0":
        return
    print(f"student: {found.parameters:,} parameters, {found.trained:,} trained\n")
    print(f"{'part':<24}{'seconds':>10}{'peak GiB':>10}   rank 0")
    for name, phase in found.phases.items():
        print(f"{name:<24}{phase.seconds:>10.2f}{phase.peak_bytes / 2**30:>10.2f}")
    print()
    for number, result in enumerate(found.results, 1):
        print(f"step {number}  loss {result.values['loss']:.6g}  gradient norm {result.update.gradient_norm:.6g}")
