"""Locks that killed builds leave behind, for which torch's builder would wait for ever, and what is not installed."""

import os
import time

import pytest
from deepspeed.ops.op_builder.builder import MissingCUDAException
from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder

from optical_scale.engine.ops import _clear_abandoned, prebuild_ops, require_file_op
from optical_scale.errors import EngineError


def test_an_old_lock_is_removed_at_once(tmp_path):
    lock = tmp_path / "lock"
    lock.touch()
    os.utime(lock, (time.time() - 500,) * 2)
    started = time.monotonic()
    _clear_abandoned(lock)
    assert not lock.exists()
    assert time.monotonic() - started < 1


def test_a_build_that_goes_on_is_waited_for(tmp_path):
    lock, other = tmp_path / "lock", tmp_path / "op.o"
    lock.touch()
    os.utime(lock, (time.time() - 500,) * 2)
    other.touch()
    started = time.monotonic()
    _clear_abandoned(lock, patience=0.5)
    assert not lock.exists()
    assert time.monotonic() - started > 0.4


def test_without_a_lock_nothing_happens(tmp_path):
    _clear_abandoned(tmp_path / "lock")
    assert list(tmp_path.iterdir()) == []


def test_offloading_to_files_names_what_is_not_installed(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "ops"))
    monkeypatch.setenv("CC", "false")  # links nothing, so it looks as if libaio were not there
    with pytest.raises(
        EngineError, match=r"`nvme`, cannot be built: libaio .* are missing; .*apt-get install libaio-dev"
    ):
        require_file_op()
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(EngineError, match=r"'no-such-compiler' that CXX names is not on PATH"):
        require_file_op()


@pytest.mark.parametrize("error", [MissingCUDAException("CUDA_HOME does not exist"), TypeError("not NoneType")])
def test_gpus_without_the_cuda_toolkit_are_told_of_it(monkeypatch, error):
    def load(*_, **__):
        raise error

    monkeypatch.setattr(ShareMemCommBuilder, "load", load)
    with pytest.raises(EngineError, match=f"{error}; .*CUDA_HOME names torch's version of the CUDA toolkit"):
        prebuild_ops()
