"""``optical-scale VERB``: dispatch, and errors as one line with an exit status.

Every verb is a module of this package with ``HELP``, ``EPILOG`` (worked examples), ``add_arguments(parser)`` and
``run(arguments) -> exit status``; its heavy imports are inside ``run``, so that help and mistakes answer at once.
"""

import argparse
import importlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from types import ModuleType

from optical_scale import __version__
from optical_scale.errors import OpticalScaleError
from optical_scale.runtime.log import configure

VERBS = (
    "convert",
    "verify",
    "inspect",
    "index",
    "upload",
    "tokenizer",
    "tokenize",
    "plan",
    "cache",
    "train",
    "launch",
    "evaluate",
    "search",
    "study",
    "export",
    "demo",
    "doctor",
)

USER_ERROR = 2
INTERRUPTED = 130
BROKEN_PIPE = 141

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb.

    Args:
        argv: arguments without the program's name; None takes those of the process.

    Returns:
        0 on success; 2 for the user's mistakes and argparse's; 130 after Ctrl-C; 141 when the reader of standard
        output went away; otherwise what the verb returns. Bugs leave with a traceback, SIGTERM with status 143.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        if not words or words[0] not in VERBS:
            _overview().parse_args(words[:1])
        verb = importlib.import_module(f"optical_scale.cli.{words[0]}")
        # Intermixed, so that key=value may also follow an option.
        arguments = _parser(words[0], verb).parse_intermixed_args(words[1:])
    except SystemExit as done:
        return int(done.code or 0)
    configure(rank=int(os.environ.get("RANK", "0")), verbose=arguments.verbose)
    # A verb that is told to end leaves as after an error, so that nothing half-written stays; train and study, which
    # finish their work first, put their own handlers in this one's place.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _leave)
    try:
        status: int = verb.run(arguments)
        sys.stdout.flush()
        return status
    except OpticalScaleError as error:
        logger.debug("where the error was raised:", exc_info=True)
        rank = os.environ.get("RANK", "0")
        print(f"error: {error}" if rank == "0" else f"[rank {rank}] error: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Python flushes standard output once more at exit; without this that flush would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE


def _leave(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def _overview() -> argparse.ArgumentParser:
    """Knows the names of the verbs, --help and --version; nothing else gets past it."""
    parser = argparse.ArgumentParser(
        prog="optical-scale",
        description="Optimal-transport distillation of multilingual and multimodal retrievers.",
        epilog="`optical-scale VERB --help` shows a verb's options and worked examples.",
    )
    parser.add_argument("--version", action="version", version=f"optical-scale {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for name in VERBS:
        verbs.add_parser(name, help=importlib.import_module(f"optical_scale.cli.{name}").HELP)
    return parser


def _parser(name: str, verb: ModuleType) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"optical-scale {name}",
        description=f"{verb.HELP[0].upper()}{verb.HELP[1:]}.",
        epilog=verb.EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--verbose", action="store_true", help="log details, and the traceback of an error")
    verb.add_arguments(parser)
    return parser
