import os
import shutil
import subprocess
import sys

import pytest

from optical_scale.cli.main import main
from optical_scale.engine.ops import compiler, missing_tools, ninja, prebuild_ops
from optical_scale.errors import EngineError
from optical_scale.recipes.doctor import Finding, examine, usable


def found(what):
    return next(finding for finding in examine() if finding.what == what)


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "ops"))
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)


def test_this_machine_is_usable(capsys):
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    for what in ("python", "torch", "deepspeed", "devices", "compiled op", "memory", "disk", "launcher"):
        assert f" {what} " in shown


def test_whatever_is_not_well_has_a_remedy(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "2")
    findings = examine(build_ops=True)
    assert all(finding.fix for finding in findings if finding.verdict != "ok")
    assert {f.what for f in findings if f.verdict == "problem"} >= {"compiled op", "launcher"}
    file_op = next(finding for finding in findings if finding.what == "op for files")
    assert (file_op.verdict, "no-such-compiler" in file_op.found) == ("warning", True)
    assert not usable(findings)


def test_missing_compiler_is_a_warning_unless_building_was_asked_for(monkeypatch, capsys):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert found("compiler").verdict == "warning"
    assert "apt-get install g++" in found("compiler").fix
    assert main(["doctor"]) == 0
    assert main(["doctor", "--build-ops"]) == 2
    assert "not usable yet: compiled op" in capsys.readouterr().out
    with pytest.raises(EngineError, match=r"'no-such-compiler' that CXX names.*apt-get install g\+\+.*gxx_linux-64"):
        prebuild_ops()


def test_empty_path_lacks_the_compiler_but_not_the_ninja_beside_python(monkeypatch, tmp_path):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert compiler() is None
    assert ninja() == os.path.join(os.path.dirname(sys.executable), "ninja")
    assert os.environ["PATH"].split(os.pathsep) == [os.path.dirname(sys.executable), str(tmp_path)]
    assert ninja() == shutil.which("ninja")
    assert os.environ["PATH"].count(os.pathsep) == 1
    assert [line.partition(" is not")[0] for line in missing_tools()] == ["a C++ compiler (c++)"]


def test_state_of_the_op_cache(tmp_path):
    assert "doctor --build-ops" in found("compiled op").fix
    folder = tmp_path / "ops" / "deepspeed_shm_comm"
    (folder / "lock").touch()
    assert "delete" in found("compiled op").fix
    (folder / "lock").unlink()
    (folder / "deepspeed_shm_comm.so").touch()
    assert found("compiled op") == Finding("compiled op", "ok", str(folder))


def test_cache_that_cannot_be_created(monkeypatch):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", "/proc/none")
    assert "TORCH_EXTENSIONS_DIR" in found("compiled op").found


def test_half_set_launcher_variables(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    assert found("launcher").verdict == "warning"
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert found("launcher").verdict == "ok"
    monkeypatch.setenv("WORLD_SIZE", "two")
    assert found("launcher").verdict == "problem"


def test_deepspeed_starts_without_a_compiler_over_gloo_alone(tmp_path):
    code = (
        "from optical_scale.engine.start import finish, start\n"
        "from optical_scale.runtime.collectives import sum_over_ranks\n"
        "from optical_scale.runtime.log import configure\n"
        "from optical_scale.runtime.world import World\n"
        "import torch\n"
        "configure(); start(World(), seed=1)\n"
        "import deepspeed\n"
        "x = torch.ones(2); deepspeed.comm.all_reduce(x)\n"
        "print(deepspeed.comm.comm.cdb.shm_comm_op, sum_over_ranks(x).tolist()); finish()\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "CXX"} | {"PATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "None [1.0, 1.0]\n"
    assert "Training goes on over gloo alone" in done.stderr
