"""One description of a cluster becomes what its launcher reads: a shell script, a batch script, a manifest."""

import os
import shlex
import subprocess
import sysconfig
from collections.abc import Sequence
from typing import Any

from optical_scale.config.launch import Cluster
from optical_scale.config.loading import to_yaml
from optical_scale.errors import EngineError

_MODULE = "optical_scale"
_DEFAULTS = {
    # Models are read from folders; a node without a network must not wait for a hub.
    "HF_HUB_OFFLINE": "1",
    # The same on all nodes, so that a training that is started again finds the same order of files and of sets.
    "PYTHONHASHSEED": "0",
}
_GPU_DEFAULTS = {
    # ZeRO-3 gathers and frees parameters of many sizes; growing segments keep the memory from fragmenting.
    "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
}

# A pod that must go is told by SIGTERM, to its first process alone. The ranks save when they get SIGUSR1; the launcher
# would kill them after 30 s when it gets a signal itself, so it ignores that one.
_POD_SCRIPT = (
    "trap '' USR1; \"$0\" \"$@\" & work=$!; trap 'kill -USR1 -1' TERM; wait $work; status=$?; "
    "while kill -0 $work 2>/dev/null; do wait $work; status=$?; done; exit $status"
)


def launch_text(cluster: Cluster, training: Sequence[str]) -> str:
    """What starts a training on ``cluster``.

    Args:
        cluster: where.
        training: arguments of `optical-scale train`: the file, then changes.

    Returns:
        A bash script for deepspeed, torchrun and slurm; YAML for jobset and pytorchjob.
    """
    match cluster.by:
        case "deepspeed":
            return _deepspeed(cluster, training)
        case "torchrun":
            return _torchrun(cluster, training)
        case "slurm":
            return _slurm(cluster, training)
        case "jobset":
            return to_yaml(_jobset(cluster, training))
        case "pytorchjob":
            return to_yaml(_pytorchjob(cluster, training))


def start(cluster: Cluster, training: Sequence[str]) -> int:
    """Hand :func:`launch_text` to the program that reads it; its exit status.

    Raises:
        EngineError: that program is not installed.
    """
    readers = {"slurm": ["sbatch"], "jobset": ["kubectl", "apply", "-f", "-"]}
    readers["pytorchjob"] = readers["jobset"]
    command = readers.get(cluster.by, ["bash"])
    # An environment that was not activated has the launchers beside Python, and the scripts call them by name.
    path = os.pathsep.join(filter(None, [sysconfig.get_path("scripts"), os.environ.get("PATH")]))
    try:
        return subprocess.run(
            command, input=launch_text(cluster, training), env=os.environ | {"PATH": path}, text=True, check=False
        ).returncode
    except FileNotFoundError as error:
        raise EngineError(
            f"{command[0]} is not on PATH; install it, or use --print and take the text to a machine that has it"
        ) from error


def _environment(cluster: Cluster) -> dict[str, str]:
    chosen = _DEFAULTS | (_GPU_DEFAULTS if cluster.gpus else {"DS_ACCELERATOR": "cpu"})
    return chosen | cluster.environment


def _exports(cluster: Cluster) -> str:
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in _environment(cluster).items())


def _enter(cluster: Cluster) -> str:
    return f"cd {shlex.quote(str(cluster.folder))}"


def _deepspeed(cluster: Cluster, training: Sequence[str]) -> str:
    hosts = cluster.hosts or ["localhost"]
    # pdsh starts processes by ssh, which carries no environment; deepspeed reads what to set there from a file.
    lines = [
        "#!/usr/bin/env bash",
        f"# {len(hosts)} x {cluster.processes} processes by deepspeed; run this on one host. The status is not 0 if a",
        "# process fails. The same script continues a run that was stopped.",
        "set -euo pipefail",
        _enter(cluster),
        "files=$(mktemp -d)",
        "trap 'rm -rf \"$files\"' EXIT",
        "cat > \"$files/hostfile\" <<'HOSTS'",
        *(f"{host} slots={cluster.processes}" for host in hosts),
        "HOSTS",
        "cat > \"$files/environment\" <<'ENVIRONMENT'",
        *(f"{name}={value}" for name, value in _environment(cluster).items()),
        "ENVIRONMENT",
        _exports(cluster),
        'export DS_ENV_FILE="$files/environment"',
    ]
    command = ["deepspeed", "--no_local_rank", "--master_port", str(cluster.port)]
    if cluster.hosts:
        command += ["--master_addr", cluster.hosts[0], "--launcher", cluster.transport, "--force_multi"]
        place = '--hostfile "$files/hostfile"'
        lines.append("# A host that does not answer is named now; the processes of the others would wait for it.")
        lines.append('optical-scale doctor --hostfile "$files/hostfile" >&2')
    else:
        place = f"--hostfile /dev/null --num_gpus {cluster.processes}"
    lines.append(f"{shlex.join(command)} {place} {shlex.join(['--module', _MODULE, 'train', *training])}")
    return "\n".join(lines) + "\n"


def _torchrun(cluster: Cluster, training: Sequence[str]) -> str:
    lines = ["#!/usr/bin/env bash"]
    command = ["torchrun", "--nproc-per-node", str(cluster.processes)]
    if cluster.nodes == 1:
        lines.append(f"# {cluster.processes} processes on this machine by torchrun.")
        command += ["--standalone"]
        rank = ""
    else:
        lines.append(f"# {cluster.nodes} x {cluster.processes} processes by torchrun; run this on every host with its")
        lines.append(f"# number: bash SCRIPT 0 on {cluster.hosts[0]}, then 1 on {cluster.hosts[1]}, and so on.")
        command += ["--nnodes", str(cluster.nodes), "--master-addr", cluster.hosts[0]]
        command += ["--master-port", str(cluster.port)]
        rank = ' --node-rank "${1:?expected the number of this host}"'
    lines += ["set -euo pipefail", _enter(cluster), _exports(cluster)]
    lines.append(f"exec {shlex.join(command)}{rank} {shlex.join(['-m', _MODULE, 'train', *training])}")
    return "\n".join(lines) + "\n"


def _slurm(cluster: Cluster, training: Sequence[str]) -> str:
    options = [
        f"--job-name={cluster.name}", f"--nodes={cluster.nodes}", "--ntasks-per-node=1",
        *([f"--gpus-per-node={cluster.processes}"] if cluster.gpus else [f"--cpus-per-task={cluster.processes}"]),
        "--exclusive", f"--time={cluster.hours}:00:00",
        f"--signal=B:USR1@{cluster.notice}", "--requeue",
        "--open-mode=append", "--output=%x-%j.log", *cluster.options,
    ]  # fmt: skip
    program = shlex.join(["-m", _MODULE, "train", *training])
    return (
        "\n".join(
            [
                "#!/usr/bin/env bash",
                *(f"#SBATCH {option}" for option in options),
                f"# {cluster.notice} s before the time limit every process is asked to save; the job then queues",
                "# itself again and continues from there.",
                "set -euo pipefail",
                _enter(cluster),
                _exports(cluster),
                'head_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
                "port=$((20000 + SLURM_JOB_ID % 20000))",
                "# The batch shell alone receives the signal of the time limit, and hands it to the job step.",
                "stopping=",
                "trap 'stopping=yes; scancel --signal=USR1 \"$SLURM_JOB_ID\"' USR1",
                "# The launchers must outlive the signal that their children obey, so they start with it ignored.",
                'srun --kill-on-bad-exit=1 bash -c \'trap "" USR1; exec "$@"\' launcher \\',
                f'    torchrun --nnodes "$SLURM_NNODES" --nproc-per-node {cluster.processes} --rdzv-backend c10d \\',
                '    --rdzv-endpoint "$head_node:$port" --rdzv-id "$SLURM_JOB_ID" \\',
                f"    {program} &",
                "step=$!",
                "status=0",
                'wait "$step" || status=$?',
                'if [ -n "$stopping" ]; then',
                "    # The signal ended the first wait; this one lasts until the checkpoint is written. What ended",
                "    # by itself needs no more time.",
                '    wait "$step" && exit',
                '    scontrol requeue "$SLURM_JOB_ID"',
                "    exit",
                "fi",
                'exit "$status"',
            ]
        )
        + "\n"
    )


def _jobset(cluster: Cluster, training: Sequence[str]) -> dict[str, Any]:
    # JobSet gives the pods of job 0 the names NAME-workers-0-INDEX below the service NAME.
    meet = f"{cluster.name}-workers-0-0.{cluster.name}"
    command = [
        "torchrun", f"--nnodes={cluster.nodes}", f"--nproc-per-node={cluster.processes}",
        "--node-rank=$(JOB_COMPLETION_INDEX)", f"--master-addr={meet}", f"--master-port={cluster.port}",
        "-m", _MODULE, "train", *training,
    ]  # fmt: skip
    job = {
        "parallelism": cluster.nodes,
        "completions": cluster.nodes,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "template": {"spec": _pod(cluster, command) | {"restartPolicy": "Never"}},
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {"name": cluster.name},
        "spec": {
            # A lost pod ends the job; all start again, and the run continues from its last checkpoint.
            "failurePolicy": {"maxRestarts": 10},
            "network": {"enableDNSHostnames": True, "subdomain": cluster.name},
            "replicatedJobs": [{"name": "workers", "replicas": 1, "template": {"spec": job}}],
        },
    }


def _pytorchjob(cluster: Cluster, training: Sequence[str]) -> dict[str, Any]:
    # The operator tells torchrun nodes, processes and meeting point through PET_* variables.
    pod = _pod(cluster, ["torchrun", "-m", _MODULE, "train", *training], container="pytorch")
    replica = {"restartPolicy": "OnFailure", "template": {"spec": pod}}
    replicas = {"Master": {"replicas": 1, **replica}}
    if cluster.nodes > 1:
        replicas["Worker"] = {"replicas": cluster.nodes - 1, **replica}
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": cluster.name},
        "spec": {
            "nprocPerNode": str(cluster.processes),
            "runPolicy": {"backoffLimit": 10, "cleanPodPolicy": "Running"},
            "pytorchReplicaSpecs": replicas,
        },
    }


def _pod(cluster: Cluster, command: Sequence[str], container: str = "worker") -> dict[str, Any]:
    # NCCL and gloo exchange through shared memory, of which a container has 64 MiB unless a volume is put there.
    volumes: list[dict[str, Any]] = [{"name": "shm", "emptyDir": {"medium": "Memory"}}]
    mounts = [{"name": "shm", "mountPath": "/dev/shm"}]
    if cluster.volume is not None:
        volumes.append({"name": "data", "persistentVolumeClaim": {"claimName": cluster.volume}})
        mounts.append({"name": "data", "mountPath": str(cluster.folder)})
    described: dict[str, Any] = {
        "name": container,
        "image": cluster.image,
        "command": ["bash", "-c", _POD_SCRIPT, *command],
        "workingDir": str(cluster.folder),
        "env": [{"name": name, "value": value} for name, value in _environment(cluster).items()],
        "volumeMounts": mounts,
    }
    if cluster.gpus:
        described["resources"] = {"limits": {"nvidia.com/gpu": cluster.processes}}
    return {"terminationGracePeriodSeconds": cluster.notice, "containers": [described], "volumes": volumes}
