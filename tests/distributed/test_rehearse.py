"""`optical-scale train --rehearse` and offload to files, which needs DeepSpeed's op for asynchronous reads."""

from pathlib import Path

import pytest

from tests.support.processes import TRAIN, finish, start
from tests.support.runs import Workshop

pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    return Workshop(tmp_path_factory.mktemp("rehearse"))


def losses(output):
    return [line.split()[3] for line in output.splitlines() if line.startswith("step ")]


def test_two_steps_are_measured_and_nothing_is_written(workshop):
    first, second = finish(start([*TRAIN, workshop.config("dry"), "--rehearse", "2"], size=2))
    assert not (workshop.folder / "dry").exists()
    rows = [line.split() for line in first.splitlines()]
    measured = {row[0]: float(row[-1]) for row in rows if row and row[0] in ("teacher", "backward", "update")}
    assert set(measured) == {"teacher", "backward", "update"}
    assert len(losses(first)) == 2
    assert "gradient norm" not in second


def test_offload_to_files_trains_as_memory_does(workshop):
    from torch.utils.cpp_extension import _get_build_directory

    # Compiling it takes minutes, which is for whoever offloads to files and not for every run of the tests.
    if not (Path(_get_build_directory("async_io", False)) / "async_io.so").is_file():
        pytest.skip("DeepSpeed's async_io op is not built on this machine")
    sides = {}
    for name, extra in (
        ("memory", {}),
        ("files", {"offload_optimizer": "nvme", "offload_parameters": "nvme", "nvme": str(workshop.folder / "nvme")}),
    ):
        student = {"engine": {"zero_stage": 3, "precision": "bf16"} | extra, "freeze": ["embeddings"]}
        (output,) = finish(start([*TRAIN, workshop.config(name, student=student), "--rehearse", "3"]), timeout=400)
        sides[name] = losses(output)
    assert len(sides["files"]) == 3
    assert sides["files"] == sides["memory"]
