"""`optical-scale evaluate`: retrieval by language, the gap, and a report."""

import argparse
from pathlib import Path

HELP = "measure exported students by language and write the report"
EPILOG = """examples:
  optical-scale evaluate configs/evaluate/multi30k.yaml
  optical-scale evaluate configs/evaluate/multi30k.yaml output=reports/b stages.0.student.pretrained=exported/b
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("config", type=Path, help="YAML file with the fields of EvaluateConfig")
    parser.add_argument("overrides", nargs="*", help="dotted overrides such as output=reports/second")


def run(arguments: argparse.Namespace) -> int:
    """Measure, print the table, name the report."""
    from optical_scale.config.loading import load
    from optical_scale.config.run import EvaluateConfig
    from optical_scale.evaluation.report import terminal_table
    from optical_scale.recipes.evaluate import evaluate

    config = load(EvaluateConfig, arguments.config, arguments.overrides)
    print(terminal_table(evaluate(config)))
    print(f"\n{config.output / 'report.html'}")
    return 0
