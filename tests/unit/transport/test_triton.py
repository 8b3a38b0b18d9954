import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from optical_scale.errors import TransportError
from optical_scale.transport import solve
from optical_scale.transport.triton import support
from tests.unit.transport.problems import ragged_tokens

installed = importlib.util.find_spec("triton") is not None
needs_triton = pytest.mark.skipif(not installed, reason="Triton is not installed; the dev extra has it")


ROOT = Path(__file__).parents[3]


@needs_triton
@pytest.mark.parametrize("tests", ["tests/unit/transport/triton", "tests/conformance/test_transport_backends.py"])
def test_kernels_in_the_interpreter(tests):
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tests],
        cwd=ROOT,
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("backend", support.TIERS)
def test_forcing_triton_where_it_cannot_run_says_why(backend, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    why = "on cpu; Triton needs CUDA, or TRITON_INTERPRET=1" if installed else "Triton is not installed"
    with pytest.raises(TransportError, match=f"backend '{backend}' cannot run: .*{why}.*use backend='auto'"):
        solve(*ragged_tokens([4], [3]), backend=backend)


@needs_triton
def test_double_precision_is_refused(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    x_BND, y_BMD = torch.ones(1, 2, 4, dtype=torch.float64), torch.ones(1, 3, 4, dtype=torch.float64)
    with pytest.raises(TransportError, match=r"compute in float32, the vectors are torch\.float64"):
        solve(x_BND, y_BMD, backend="triton")


def test_automatic_choice_on_the_cpu_stays_with_torch(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert not solve(*ragged_tokens([4], [3])).choice.backend.startswith("triton")
