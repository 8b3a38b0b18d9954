"""`optical-scale demo`: the whole path on embedded data."""

import argparse
from pathlib import Path

HELP = "run the whole path on embedded data: convert, train, distil, export, evaluate"
EPILOG = """examples:
  optical-scale demo
  optical-scale demo --output /tmp/demo --processes 1

Running it again skips the stages whose results are there. To repeat one stage, delete its result and run it again.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("--output", type=Path, default=Path("runs/demo"), help="folder for everything (%(default)s)")
    parser.add_argument("--processes", type=int, help="ranks; default: one per GPU, or two on CPUs, or one on one core")


def run(arguments: argparse.Namespace) -> int:
    """Run, print the table, name the report."""
    from optical_scale.engine.launch import default_processes
    from optical_scale.evaluation.report import terminal_table
    from optical_scale.recipes.demo import demo

    report = demo(arguments.output, arguments.processes or default_processes())
    print(terminal_table(report))
    print(f"\n{arguments.output / 'report' / 'report.html'}")
    return 0
