"""Which host a rank is on, so that the survivors of a failure can name the host that is gone."""

import contextlib
import os
import re
import socket
from collections.abc import Iterator
from typing import NamedTuple

import torch.distributed as dist

from optical_scale.errors import EngineError

_ADDRESS = re.compile(r"\[([0-9a-fA-F.:]+)\]:\d+")
# How gloo, NCCL and the rendezvous store say that the other side is gone.
_LOST = (
    "Connection reset by peer",
    "Connection closed by peer",
    "Connection timed out",
    "Connection refused",
    "Broken pipe",
    "Timed out waiting",
    "Read error",
    "Socket closed",
    "remote process exited",
    "NCCL communicator was aborted",
    "Watchdog caught collective operation timeout",
)


class Peer(NamedTuple):
    """Where one rank runs."""

    rank: int
    host: str
    address: str


@contextlib.contextmanager
def naming_lost_peers() -> Iterator[None]:
    """Turn the error of a broken connection into one that says which host is lost; enter after the group is joined.

    Raises:
        EngineError: a collective failed because another rank is gone or has not answered in time.
    """
    peers = _peers()
    try:
        yield
    except (RuntimeError, ConnectionError) as error:
        words = str(error)
        if not any(sign in words for sign in _LOST):
            raise
        raise EngineError(
            f"{_suspects(words, peers)}: {words.strip().splitlines()[0][:200]}. This process ends; the command that "
            "started the run continues it from the last complete checkpoint"
        ) from error


def _peers() -> list[Peer]:
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return []
    found: list[Peer | None] = [None] * dist.get_world_size()
    dist.all_gather_object(found, Peer(dist.get_rank(), socket.gethostname(), _address()))
    return [peer for peer in found if peer is not None]


def _address() -> str:
    """The address from which this host talks to the meeting point; no packet is sent."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((os.environ.get("MASTER_ADDR", "127.0.0.1"), 9))
        return str(probe.getsockname()[0])
    return "127.0.0.1"


def _suspects(words: str, peers: list[Peer]) -> str:
    named = set(_ADDRESS.findall(words))
    lost = [peer for peer in peers if peer.address in named]
    hosts = {peer.host for peer in lost}
    if len(hosts) == 1:
        ranks = ", ".join(str(peer.rank) for peer in lost)
        return f"host {hosts.pop()} ({lost[0].address}, rank {ranks}) does not answer any more"
    return f"one of the hosts {', '.join(sorted({peer.host for peer in peers}))} does not answer any more"
