"""`optical-scale launch`: a training on many machines."""

import argparse
from pathlib import Path

HELP = "start a training on the machines of a cluster, or print what would start it"
EPILOG = """examples:
  optical-scale launch configs/launch/ssh.yaml configs/distill/multi30k_minilm.yaml
  optical-scale launch configs/launch/ssh.yaml configs/distill/multi30k_minilm.yaml --print
  optical-scale launch configs/launch/slurm.yaml configs/distill/multi30k_minilm.yaml --print > job.sbatch
  optical-scale launch configs/launch/kubernetes.yaml configs/distill/multi30k_minilm.yaml --print > job.yaml
  see first that all machines work together, with the real networks:
    optical-scale launch configs/launch/ssh.yaml configs/distill/multi30k_minilm.yaml --rehearse 1
  change the cluster with --set, the training after its file:
    optical-scale launch configs/launch/slurm.yaml configs/distill/multi30k_minilm.yaml seed=1 --set nodes=4

Exit status: of the launcher; not 0 if a process fails.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("cluster", type=Path, help="YAML file with the fields of Cluster")
    parser.add_argument("config", type=Path, help="YAML file with the fields of TrainConfig")
    parser.add_argument("overrides", nargs="*", help="changes to it, such as optimization.epochs=3")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="changes to the cluster")
    parser.add_argument(
        "--rehearse", type=int, metavar="STEPS", help="as for train: run only some steps, write nothing"
    )
    parser.add_argument("--print", action="store_true", help="write the script or manifest to standard output instead")


def run(arguments: argparse.Namespace) -> int:
    """Check both files, then print or start."""
    from optical_scale.config.deepspeed import check_batches
    from optical_scale.config.launch import Cluster
    from optical_scale.config.loading import load
    from optical_scale.config.run import TrainConfig
    from optical_scale.recipes.launch import launch_text, start

    cluster = load(Cluster, arguments.cluster, arguments.set)
    check_batches(load(TrainConfig, arguments.config, arguments.overrides), cluster.nodes * cluster.processes)
    training = [str(arguments.config), *arguments.overrides]
    training += [f"--rehearse={arguments.rehearse}"] if arguments.rehearse else []
    if arguments.print:
        print(launch_text(cluster, training), end="")
        return 0
    return start(cluster, training)
