"""`optical-scale study`: a grid of runs, and one report on all of them."""

import argparse
from pathlib import Path

HELP = "train and evaluate a grid of runs, and compare them in one report"
EPILOG = """examples:
  optical-scale study configs/study/multi30k_objectives.yaml
  only read what is there and write the report:
    optical-scale study configs/study/multi30k_objectives.yaml --collect
  run a part of the grid, and report on all that is done:
    optical-scale study configs/study/recipe.yaml --only 'Somali-*'
  an array job under Slurm instead, one task per cell that is not done:
    optical-scale study configs/study/multi30k_objectives.yaml --slurm
    sbatch studies/objectives/study.sbatch

All cells are checked before the first one starts. The same command continues: finished cells are skipped, failed ones
tried again. Exit status: 0 if all cells that were asked for are done, else 1.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("config", type=Path, help="YAML file with the fields of Study")
    parser.add_argument("overrides", nargs="*", help="dotted overrides such as jobs=2")
    parser.add_argument(
        "--only", default="*", metavar="PATTERN", help="run cells of such names only: a shell pattern in quotes"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--collect", action="store_true", help="run nothing, write the report on finished cells")
    what.add_argument("--slurm", action="store_true", help="run nothing, write study.sbatch into the output folder")
    what.add_argument("--cell", help="run this one only: its name, or its number from 0; writes no report")


def run(arguments: argparse.Namespace) -> int:
    """Run, write or collect."""
    from optical_scale.config.loading import load
    from optical_scale.config.study import Study
    from optical_scale.errors import ConfigError
    from optical_scale.recipes.study_grid import grid

    study = load(Study, arguments.config, arguments.overrides)
    cells = grid(study)
    # Only a sound study pays for loading the rest.
    from optical_scale.recipes import study as recipe

    if arguments.only != "*" and (arguments.collect or arguments.cell is not None):
        raise ConfigError(
            "--only: found beside --cell or --collect; it chooses what is run or submitted, so leave one out"
        )
    wanted = recipe.cells_named(cells, arguments.only)
    if arguments.slurm:
        path = recipe.write_slurm(study, cells, wanted, [str(arguments.config), *arguments.overrides])
        print(f"sbatch {path}" if path else f"all {len(wanted)} cells that were asked for are done; nothing to submit")
        return 0
    if arguments.cell is not None:
        outcomes = recipe.run_cells(study, [recipe.one_cell(cells, arguments.cell)])
        return int(any(outcome.status != "done" for outcome in outcomes))
    outcomes = [] if arguments.collect else recipe.run_cells(study, wanted)
    done = sum(map(recipe.is_done, cells))
    if done or arguments.collect:
        print(recipe.collect(study, cells))
    for outcome in outcomes:
        if outcome.status != "done":
            print(f"{outcome.status}: {outcome.cell.name} {outcome.reason}".rstrip())
    print(f"\n{done} of {len(cells)} cells are done; {study.output / 'report.html' if done else 'no report yet'}")
    return int(not arguments.collect and not all(map(recipe.is_done, wanted)))
