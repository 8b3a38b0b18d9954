"""Bringing a process into the run, on GPUs with NCCL or on CPUs with gloo, and leaving it."""

import contextlib
import datetime
import io
import logging
import os
import socket
import warnings

import torch
import torch.distributed as dist

from optical_scale.engine.leftovers import remove_abandoned_buffers
from optical_scale.engine.ops import require_communication_op
from optical_scale.errors import EngineError
from optical_scale.runtime.world import World

logger = logging.getLogger(__name__)

# A rank that waits longer than this for another has lost it; torch's default of half an hour wastes a cluster.
COLLECTIVE_TIMEOUT = datetime.timedelta(minutes=10)


def start(world: World, *, seed: int, patience: datetime.timedelta = COLLECTIVE_TIMEOUT) -> torch.device:
    """Join the process group and return this process's device.

    Args:
        world: this process among all.
        seed: of torch's generators, the same on all ranks so that models start equal.
        patience: how long a rank waits for the others, now and in every collective.

    Raises:
        EngineError: fewer GPUs than local ranks, or not all processes came.
    """
    # torch 2.13 deprecates two collectives that DeepSpeed 0.19 still calls on every step.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    device = _device(world)
    _threads(world, device)
    if device.type == "cpu":
        if world.local_rank == 0:
            remove_abandoned_buffers()
        require_communication_op()
        os.environ["DS_ACCELERATOR"] = "cpu"
    _default_rendezvous(world)
    # DeepSpeed announces its CPU op by print on every rank, and standard output belongs to the user's pipe.
    with contextlib.redirect_stdout(io.StringIO()):
        if not dist.is_initialized():
            _meet(world, "nccl" if device.type == "cuda" else "gloo", patience)
    torch.manual_seed(seed)
    return device


def finish() -> None:
    """Leave the process group, so that no rank exits while another still talks to it."""
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def _meet(world: World, backend: str, patience: datetime.timedelta) -> None:
    import deepspeed

    place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    if world.size > world.local_size:
        logger.info("waiting for all %d processes at %s, at most %s", world.size, place, patience)
    try:
        deepspeed.init_distributed(dist_backend=backend, verbose=False, timeout=patience)
    except dist.DistError as error:
        raise EngineError(
            f"not all {world.size} processes met at {place} within {patience}: {str(error).splitlines()[0][:200]}. See "
            "that all machines were started and that `optical-scale doctor --hostfile` reaches them; on several "
            "networks name the interface (GLOO_SOCKET_IFNAME, NCCL_SOCKET_IFNAME)"
        ) from error


def _device(world: World) -> torch.device:
    if not torch.cuda.is_available() or os.environ.get("DS_ACCELERATOR") == "cpu":
        return torch.device("cpu")
    if torch.cuda.device_count() < world.local_size:
        raise EngineError(
            f"{world.local_size} processes on this node but {torch.cuda.device_count()} GPUs; "
            "start as many processes as GPUs, or set DS_ACCELERATOR=cpu to train on the CPU"
        )
    torch.cuda.set_device(world.local_rank)
    return torch.device("cuda", world.local_rank)


def _threads(world: World, device: torch.device) -> None:
    """Share the cores among the local ranks; torch would otherwise start one thread per core in each of them.

    Who names OMP_NUM_THREADS decides. torchrun names it too, always 1, for whoever does not, so its 1 means nothing.
    """
    named = os.environ.get("OMP_NUM_THREADS")
    by_torchrun = named == "1" and "TORCHELASTIC_RUN_ID" in os.environ
    if device.type == "cpu" and (not named or by_torchrun):
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // world.local_size))


def _default_rendezvous(world: World) -> None:
    if world.size == 1 and "MASTER_PORT" not in os.environ:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    os.environ.setdefault("RANK", str(world.rank))
    os.environ.setdefault("WORLD_SIZE", str(world.size))
    os.environ.setdefault("LOCAL_RANK", str(world.local_rank))
