"""Where a training runs: hosts, processes, scheduler."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, StringConstraints, model_validator

from optical_scale.config.schema import Schema

Name = Annotated[str, StringConstraints(pattern=r"^[a-z]([-a-z0-9]{0,40}[a-z0-9])?$")]
Host = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.:_-]*[A-Za-z0-9])?$")]
Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class Cluster(Schema):
    """`optical-scale launch`: machines and how processes get there."""

    by: Literal["deepspeed", "torchrun", "slurm", "jobset", "pytorchjob"]
    """deepspeed: over ssh from one host. torchrun: one command on every host. slurm: a batch script. jobset and
    pytorchjob: Kubernetes manifests, for the JobSet controller or Kubeflow's training operator."""
    name: Name = "optical-scale"
    """Of the job."""
    nodes: PositiveInt = 1
    """Machines."""
    processes: PositiveInt = 8
    """On each machine; on GPU machines as many as GPUs."""
    gpus: bool = True
    """Each process has a GPU; false trains on CPUs."""
    hosts: list[Host] = []
    """Names that ssh and the processes reach, the first one being where they meet (deepspeed and torchrun)."""
    transport: Literal["pdsh", "openmpi", "mpich"] = "pdsh"
    """What starts the processes of other hosts (deepspeed)."""
    port: Annotated[int, Field(ge=1024, le=65535)] = 29500
    """Where the processes meet."""
    environment: dict[Variable, str] = {}
    """Set in every process, for example NCCL_SOCKET_IFNAME."""
    folder: Path = Path()
    """Working folder on every machine; paths in the training configuration start there."""
    hours: PositiveInt = 24
    """Time limit (slurm)."""
    notice: PositiveInt = 600
    """Seconds before the end at which the run is asked to save a checkpoint: before the time limit with slurm, before
    a pod is killed on Kubernetes."""
    options: list[Annotated[str, StringConstraints(pattern=r"^--[^\n]+$")]] = []
    """Further options of sbatch, for example `--partition=gpu` (slurm)."""
    image: str = "optical-scale:latest"
    """Container image (jobset and pytorchjob)."""
    volume: Name | None = None
    """Persistent volume claim mounted at `folder`, for configurations, data and runs (jobset and pytorchjob)."""

    @model_validator(mode="after")
    def _fits(self) -> "Cluster":
        over_hosts = self.by in ("deepspeed", "torchrun")
        if over_hosts and self.nodes > 1 and len(self.hosts) != self.nodes:
            raise ValueError(f"`hosts` names {len(self.hosts)} machines, `nodes` says {self.nodes}; make them agree")
        if len(set(self.hosts)) != len(self.hosts):
            raise ValueError("`hosts` names a machine twice; raise `processes` to start more processes there")
        if self.options and self.by != "slurm":
            raise ValueError("`options` are for sbatch; use them with `by: slurm`")
        if self.volume and self.by not in ("jobset", "pytorchjob"):
            raise ValueError("`volume` is for Kubernetes; use it with `by: jobset` or `by: pytorchjob`")
        if self.by in ("jobset", "pytorchjob") and not self.folder.is_absolute():
            raise ValueError("on Kubernetes `folder` is where the volume is mounted; give an absolute path")
        return self
