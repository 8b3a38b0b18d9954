import subprocess
import sys

import pytest
import torch

from optical_scale.transport.blockwise import Blockwise
from optical_scale.transport.dense import DenseLog
from optical_scale.transport.problem import build_problem
from tests.unit.transport.problems import ragged_tokens


@pytest.mark.parametrize("log_domain", [False, True])
@pytest.mark.parametrize("panel_rows", [1, 4, 100])
@pytest.mark.parametrize("rho", [None, 0.1])
def test_every_panel_size_agrees_with_dense(log_domain, panel_rows, rho):
    one = build_problem(
        *ragged_tokens([9, 4, 1], [3, 7, 5]),
        None,
        None,
        cost="cosine",
        epsilon=torch.tensor([0.02, 0.05, 0.1]),
        epsilon_mode="absolute",
        rho=rho,
        check=True,
    )
    mine, dense = Blockwise(one, log_domain=log_domain, panel_rows=panel_rows), DenseLog(one)
    start_BM = 0.1 * torch.randn(3, 7)
    potentials = mine.iterate(start_BM, 4)
    for got, expected in zip(potentials, dense.iterate(start_BM, 4), strict=True):
        torch.testing.assert_close(got, expected, atol=2e-6, rtol=0)
    torch.testing.assert_close(mine.row_mass(*potentials), dense.row_mass(*potentials), atol=3e-6, rtol=0)
    for axis, values in ((1, torch.randn(3, 7, 2)), (0, torch.randn(3, 9, 2))):
        got, expected = (operators.apply_plan(*potentials, values, axis) for operators in (mine, dense))
        torch.testing.assert_close(got.values, expected.values, atol=1e-5, rtol=0)


MEASURE = """
import resource, sys, torch
from optical_scale.transport import sinkhorn_cost
torch.set_num_threads(1)
def step(N):
    x, y = torch.randn(1, N, 32), torch.randn(1, N, 32, requires_grad=True)
    sinkhorn_cost(x, y, iterations=2, backend="blockwise", domain=sys.argv[1]).cost_B.sum().backward()
step(64)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
step(4096)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the unit of ru_maxrss differs")
@pytest.mark.parametrize("domain", ["exp", "log"])
def test_peak_memory_stays_far_below_one_cost_matrix(domain):
    """4096 x 4096 float32 is 64 MiB. Measured by the process's high-water mark, which sees every allocation."""
    command = [sys.executable, "-c", MEASURE, domain]
    peak = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    assert int(peak) < 24


def test_no_intermediate_has_n_times_m_elements():
    x_BND, y_BMD = torch.randn(1, 600, 8), torch.randn(1, 1100, 8)
    one = build_problem(
        x_BND, y_BMD, None, None, None, None, cost="cosine", epsilon=0.02, epsilon_mode="absolute", rho=None, check=True
    )
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for tensor in torch.utils._pytree.tree_leaves(out):
                if isinstance(tensor, torch.Tensor):
                    largest = max(largest, tensor.numel())
            return out

    with Watch():
        operators = Blockwise(one, log_domain=True, panel_rows=50)
        operators.apply_plan(*operators.iterate(torch.zeros(1, 1100), 2), one.geometry.q_BMD, 1)
    assert largest == 50 * 1100
