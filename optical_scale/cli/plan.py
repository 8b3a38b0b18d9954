"""`optical-scale plan data`: the training stream on paper."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optical_scale.config.run import TrainConfig
    from optical_scale.recipes.plan_data import DataPlan
    from optical_scale.recipes.plan_memory import Layout, Memory

HELP = "compute what a run will do before it is started"
EPILOG = """examples:
  optical-scale plan data configs/distill/multi30k_minilm.yaml
  optical-scale plan data configs/distill/multi30k_minilm.yaml stream.pairs_per_step=4096 --ranks 8 64 512
  read no pairs, for shards that are not here yet:
    optical-scale plan data configs/distill/multi30k_minilm.yaml --blocks 0

  what the configuration needs on 8, 16 and 64 GPUs, and what fits there if a GPU has 80 GiB:
    optical-scale plan memory configs/distill/xlmr_xl.yaml --ranks 8 16 64 --gib 80

Balance is the mean work of a rank over that of the slowest.

Exit status: 0 if every number of ranks can run, for memory if one of them fits; else 1.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument(
        "what",
        choices=["data", "memory"],
        help="data: steps, exposure of languages, balance, padding. memory: bytes per rank",
    )
    parser.add_argument("config", type=Path, help="YAML file with the fields of TrainConfig")
    parser.add_argument("overrides", nargs="*", help="dotted overrides such as stream.pairs_per_step=4096")
    parser.add_argument(
        "--ranks", type=int, nargs="+", default=[1, 2, 4, 8, 64, 512, 4096], help="numbers of processes to consider"
    )
    parser.add_argument("--gib", type=float, default=80.0, help="memory of a GPU, for plan memory (default: 80)")
    parser.add_argument("--tokens", type=int, help="of every text, for plan memory; default: the backbones' limits")
    parser.add_argument("--per-node", type=int, default=8, help="processes on a node (default: 8)")
    parser.add_argument("--blocks", type=int, default=1, help="look-aheads to read and cut; 0 reads no pairs")


def run(arguments: argparse.Namespace) -> int:
    """Print the plan."""
    from optical_scale.config.loading import load
    from optical_scale.config.run import TrainConfig

    config = load(TrainConfig, arguments.config, arguments.overrides)
    if arguments.what == "memory":
        return _memory(config, arguments)
    from optical_scale.recipes.plan_data import plan_data

    plans = plan_data(config, arguments.ranks, per_node=arguments.per_node, blocks=arguments.blocks)
    for name, plan in plans.items():
        if len(plans) > 1:
            print(f"== {name} ==")
        _print(plan, arguments.per_node)
    return 1 if any(world.problem for plan in plans.values() for world in plan.worlds) else 0


def _print(plan: "DataPlan", per_node: int) -> None:
    print(f"{plan.steps:,} steps, {plan.steps_per_epoch:,} an epoch; {plan.shards:,} shards")
    print(f"{plan.examined:,} steps examined, {plan.look_ahead:,} are cut together\n")
    print(f"{'language':<10}{'pairs':>15}{'share':>9}{'draws':>17}{'epochs':>9}")
    for row in plan.exposure:
        print(f"{row.language:<10}{row.pairs:>15,}{row.probability:>9.2%}{row.draws:>17,}{row.epochs:>9.2f}")
    print(
        f"\n{'ranks':>6}{'micro-batches':>15}{'pairs in one':>14}{'padding':>9}{'balance':>9}"
        f"{'pairs/node':>15}{'shards/node':>13}   each epoch, nodes of {per_node}"
    )
    for world in plan.worlds:
        if world.problem:
            print(f"{world.ranks:>6}  {world.problem}")
            continue
        cells = f"{'?':>15}{'?':>14}{'?':>9}{'?':>9}"
        if world.shape is not None:
            found = world.shape
            cells = (
                f"{found.micro_batches / plan.examined / world.ranks:>15.1f}{found.pairs / found.micro_batches:>14.1f}"
                f"{found.padding:>9.1%}{found.balance:>9.1%}"
            )
        print(f"{world.ranks:>6}{cells}{world.pairs:>15,.0f}{world.shards:>13,.0f}")


def _memory(config: "TrainConfig", arguments: argparse.Namespace) -> int:
    from optical_scale.recipes.plan_memory import PARTS, MemoryPlan

    columns = (*PARTS, "total", "host")
    plan = MemoryPlan(config, arguments.tokens)
    for name, shape in plan.students.items():
        print(f"student of {name}: {shape.parameters:,} parameters, {shape.trained:,} trained")
    print(
        f"{f'teacher: {plan.teacher.parameters:,} parameters; ' if plan.teacher else ''}micro-batches of {plan.pairs} "
        f"pairs of {plan.teacher_tokens} and {plan.student.tokens} tokens\n"
    )
    print("GiB of a rank   " + "".join(f"{name:>12}" for name in columns))
    print("as configured")
    for ranks in arguments.ranks:
        layout = plan.layout(ranks)
        _row(layout, plan.memory(layout), columns)
    print(f"\nwhat leaves a tenth of {arguments.gib:g} GiB free, from the fastest to the smallest")
    found = plan.fitting(arguments.ranks, int(arguments.gib * 2**30))
    for layout, memory in found:
        _row(layout, memory, columns)
    for ranks in arguments.ranks:
        if not any(layout.ranks == ranks for layout, _ in found):
            print(f"{ranks:>5} ranks  nothing fits; make stream.micro_batch_pairs or max_tokens smaller")
    return 0 if found else 1


def _row(layout: "Layout", memory: "Memory", columns: tuple[str, ...]) -> None:
    cells = "".join(f"{getattr(memory, name) / 2**30:>12.2f}" for name in columns)
    print(
        f"{layout.ranks:>5} ranks     {cells}   zero_stage={layout.zero_stage} "
        f"offload_optimizer={layout.offload_optimizer} offload_parameters={layout.offload_parameters} "
        f"activation_checkpointing={str(layout.activation_checkpointing).lower()}"
    )
