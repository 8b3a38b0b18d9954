"""What `optical-scale launch --print` writes, for every launcher; and two that really start processes here."""

import itertools
import shlex
import subprocess

import pytest
import yaml

from optical_scale.cli.main import main
from optical_scale.config.launch import Cluster
from optical_scale.config.loading import load
from optical_scale.recipes.launch import launch_text
from tests.support.processes import ROOT

TRAINING = ["configs/it's mine.yaml", "run=a b", "seed=1"]
NASTY = {"NCCL_SOCKET_IFNAME": "eth0", "NOTE": "it's $HOME; `true`"}
SIZES = [(1, []), (2, ["node-01", "node-02"])]
CONFIGS = sorted((ROOT / "configs" / "launch").glob("*.yaml"))


def cluster(by, nodes=1, hosts=(), **more):
    folder = "/work" if by in ("jobset", "pytorchjob") else str(ROOT)
    return Cluster.model_validate(
        {"by": by, "nodes": nodes, "hosts": list(hosts), "processes": 2, "environment": NASTY, "folder": folder} | more
    )


@pytest.mark.parametrize(
    ("by", "size"), list(itertools.product(["deepspeed", "torchrun", "slurm"], SIZES)), ids=lambda value: str(value)[:9]
)
def test_scripts_parse_and_quote_what_the_user_wrote(by, size):
    text = launch_text(cluster(by, *size), TRAINING)
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    last = next(line for line in text.replace("\\\n", " ").splitlines() if "optical_scale train" in line)
    words = shlex.split(last.removesuffix("&"))
    assert words[-3:] == TRAINING
    exports = "\n".join(line for line in text.splitlines() if line.startswith("export "))
    found = subprocess.run(["bash", "-c", f'{exports}\nprintf %s "$NOTE"'], capture_output=True, text=True, check=True)
    assert found.stdout == NASTY["NOTE"]


def test_options_of_sbatch_stand_before_the_first_command():
    text = launch_text(cluster("slurm", options=["--partition=gpu"], hours=3, notice=120), TRAINING)
    header, _, rest = text.partition("\nset -euo pipefail\n")
    assert "#SBATCH --partition=gpu" in header
    assert "#SBATCH --time=3:00:00" in header
    assert "#SBATCH --signal=B:USR1@120" in header
    assert "#SBATCH" not in rest


def test_jobset_meets_at_its_first_pod_and_gives_each_its_number():
    manifest = yaml.safe_load(launch_text(cluster("jobset", 4, volume="data", name="study"), TRAINING))
    job = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert (job["parallelism"], job["completions"], job["completionMode"]) == (4, 4, "Indexed")
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    assert "--master-addr=study-workers-0-0.study" in container["command"]
    assert manifest["spec"]["network"]["subdomain"] == "study"
    assert "--node-rank=$(JOB_COMPLETION_INDEX)" in container["command"]
    assert container["command"][-3:] == TRAINING
    assert {"name": "NOTE", "value": NASTY["NOTE"]} in container["env"]
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/dev/shm", "/work"}
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 2}
    assert pod["terminationGracePeriodSeconds"] == 600


@pytest.mark.parametrize("nodes", [1, 4])
def test_pytorchjob_has_one_master_and_the_rest_as_workers(nodes):
    manifest = yaml.safe_load(launch_text(cluster("pytorchjob", nodes, gpus=False), TRAINING))
    replicas = manifest["spec"]["pytorchReplicaSpecs"]
    assert {name: replica["replicas"] for name, replica in replicas.items()} == (
        {"Master": 1, "Worker": 3} if nodes == 4 else {"Master": 1}
    )
    (container,) = replicas["Master"]["template"]["spec"]["containers"]
    assert container["name"] == "pytorch", "the operator finds its container by this name"
    assert "resources" not in container
    assert {"name": "DS_ACCELERATOR", "value": "cpu"} in container["env"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"by": "deepspeed", "nodes": 2, "hosts": ["a"]}, "names 1 machines, `nodes` says 2"),
        ({"by": "torchrun", "nodes": 2, "hosts": ["a", "a"]}, "names a machine twice"),
        ({"by": "jobset"}, "absolute path"),
        ({"by": "torchrun", "options": ["--partition=gpu"]}, "use them with `by: slurm`"),
        ({"by": "torchrun", "hosts": ["a; rm -rf /"]}, "pattern"),
    ],
)
def test_what_does_not_fit_is_refused(values, words):
    with pytest.raises(ValueError, match=words):
        Cluster.model_validate(values)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_clusters_print(path, capsys):
    ranks = (found := load(Cluster, path)).nodes * found.processes
    training = ["configs/distill/multi30k_minilm.yaml", f"stream.pairs_per_step={32 * ranks}"]
    assert main(["launch", str(path), *training, "--print"]) == 0
    assert capsys.readouterr().out == launch_text(found, training)
    assert main(["launch", str(path), *training, "--rehearse", "2", "--print"]) == 0
    assert capsys.readouterr().out == launch_text(found, [*training, "--rehearse=2"])


def test_a_batch_that_does_not_divide_is_refused_with_the_arithmetic(capsys):
    command = [
        "launch",
        str(CONFIGS[-1]),
        "configs/distill/multi30k_minilm.yaml",
        "stream.pairs_per_step=96",
        "--print",
    ]
    assert main(command) == 2
    assert "96 is not a multiple of micro_batch_pairs x processes" in capsys.readouterr().err
