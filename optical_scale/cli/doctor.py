"""`optical-scale doctor`: is this machine ready for a run?"""

import argparse

HELP = "examine this machine: versions, devices, compiler, memory, launcher"
EPILOG = """examples:
  optical-scale doctor
  compile DeepSpeed's communication op now, for example while building a container image:
    optical-scale doctor --build-ops

Exit status: 0 if the machine is usable (warnings included), 2 if something must be mended first.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument(
        "--build-ops", action="store_true", help="compile DeepSpeed's CPU communication op into its cache"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print one line per finding, with the remedy below where one is needed."""
    from optical_scale.recipes.doctor import examine, usable

    findings = examine(build_ops=arguments.build_ops)
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
