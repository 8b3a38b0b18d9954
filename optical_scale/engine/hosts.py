"""Other machines, seen from this one: who is named in a hostfile, and whether ssh and sockets reach them."""

import contextlib
import json
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from optical_scale.errors import EngineError

PACKAGES = ("torch", "deepspeed", "transformers")
"""Whose versions must agree on all machines."""

_ENTRY = re.compile(r"(\S+)\s+slots=([1-9]\d*)(\s+#.*)?")
_CONNECT_SECONDS = 10
_ANSWER_SECONDS = 40
# What runs there: the versions that its Python finds, and a connection back to this machine.
_REMOTE = (
    "import json, os, socket, sys; from importlib.metadata import version; "
    f"print(json.dumps({{name: version(name) for name in {PACKAGES!r}}})); "
    "back = (os.environ['SSH_CONNECTION'].split()[0], int(sys.argv[1])); "
    f"socket.create_connection(back, {_CONNECT_SECONDS}).close()"
)


class Answer(NamedTuple):
    """How a host answered: its versions, or what is wrong."""

    versions: dict[str, str]
    problem: str = ""


def read_hostfile(path: Path) -> dict[str, int]:
    """Processes of each host, in order.

    Raises:
        EngineError: no such file, no host in it, a host named twice, or a line that is not ``HOST slots=NUMBER``.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", error)
        raise EngineError(
            f"hostfile {path} cannot be read: {reason}; expected a file with one `HOST slots=NUMBER` a line"
        ) from error
    hosts: dict[str, int] = {}
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#"):
            continue
        entry = _ENTRY.fullmatch(line)
        if entry is None:
            raise EngineError(f"hostfile {path}, line {number}: found {line!r}; expected `HOST slots=NUMBER`")
        if entry[1] in hosts:
            raise EngineError(
                f"hostfile {path}, line {number}: {entry[1]} is named twice; give it one line with all its slots"
            )
        hosts[entry[1]] = int(entry[2])
    if not hosts:
        raise EngineError(f"hostfile {path} names no host; expected one `HOST slots=NUMBER` a line")
    return hosts


def ask(hosts: Sequence[str]) -> dict[str, Answer]:
    """What every host answers, all asked at once: over ssh, in the present folder, with the present Python."""
    with _listener() as port, ThreadPoolExecutor(min(64, len(hosts))) as threads:
        return dict(zip(hosts, threads.map(lambda host: _ask(host, port), hosts), strict=True))


@contextlib.contextmanager
def _listener() -> Iterator[int]:
    """A port of this machine that takes connections, as those of a training do."""
    with socket.create_server(("", 0), backlog=1024) as server:
        yield server.getsockname()[1]


def _ask(host: str, port: int) -> Answer:
    there = f"cd {shlex.quote(str(Path.cwd()))} && {shlex.join([sys.executable, '-c', _REMOTE, str(port)])}"
    options = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={_CONNECT_SECONDS}"]
    try:
        done = subprocess.run(
            ["ssh", *options, host, there],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=_ANSWER_SECONDS,
        )  # fmt: skip
    except FileNotFoundError:
        return Answer({}, "ssh is not on PATH here")
    except subprocess.TimeoutExpired:
        return Answer({}, f"no answer to ssh within {_ANSWER_SECONDS} s")
    said = done.stderr.strip().splitlines()
    if not done.stdout.startswith("{"):
        return Answer({}, said[-1] if said else f"ssh ended with status {done.returncode}")
    versions = json.loads(done.stdout)
    if done.returncode:
        return Answer(versions, f"it does not reach port {port} of this machine: {said[-1] if said else 'no message'}")
    other = [f"{name} {versions[name]}, here {version(name)}" for name in PACKAGES if versions[name] != version(name)]
    return Answer(versions, "; ".join(other))
