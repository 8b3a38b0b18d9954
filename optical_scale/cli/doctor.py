"""`optical-scale doctor`: is this machine ready for a run?"""

import argparse
import os
from pathlib import Path

HELP = "examine this machine, and others: versions, devices, compiler, memory, launcher, network"
EPILOG = """examples:
  optical-scale doctor
  compile DeepSpeed's ops now, for example while building a container image (the one for files where libaio is):
    optical-scale doctor --build-ops
  start processes here as a run would, let them exchange numbers and train a tiny network for one step:
    optical-scale doctor --dry-step
  the same in the processes of a launcher, on all its machines, over NCCL or gloo:
    srun torchrun ... -m optical_scale doctor --dry-step
  see whether ssh reaches the machines of a hostfile, whether they reach this one, and have the same versions:
    optical-scale doctor --hostfile launch/hostfile

Exit status: 0 if the machine is usable (warnings included), 2 if something must be mended first.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument(
        "--build-ops", action="store_true", help="compile DeepSpeed's ops into their cache: communication, files"
    )
    parser.add_argument("--dry-step", action="store_true", help="start processes and train a tiny network for one step")
    parser.add_argument("--hostfile", type=Path, help="also ask the machines that this file names, over ssh")


def run(arguments: argparse.Namespace) -> int:
    """Print one line per finding, with the remedy below where one is needed."""
    if arguments.dry_step and "WORLD_SIZE" in os.environ:
        from optical_scale.recipes.dry_step import dry_step

        told = dry_step()
        if os.environ.get("RANK", "0") == "0":
            print(told)
        return 0
    from optical_scale.engine.hosts import read_hostfile
    from optical_scale.recipes.doctor import examine, usable

    hosts = [] if arguments.hostfile is None else list(read_hostfile(arguments.hostfile))
    findings = examine(build_ops=arguments.build_ops, hosts=hosts, dry_step=_dry_step if arguments.dry_step else None)
    widest = max(len(finding.what) for finding in findings)
    for finding in findings:
        print(f"{finding.verdict:<8} {finding.what:<{widest}}  {finding.found}")
        if finding.fix:
            print(f"{'':<8} {'':<{widest}}  -> {finding.fix}")
    if usable(findings):
        return 0
    problems = ", ".join(finding.what for finding in findings if finding.verdict == "problem")
    print(f"not usable yet: {problems}")
    return 2


def _dry_step() -> int:
    from optical_scale.engine.launch import default_processes, launch

    return launch(default_processes(), "optical_scale", ["doctor", "--dry-step"])
