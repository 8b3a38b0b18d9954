"""What only a GPU can show of the Triton backends: that a step is captured in a CUDA graph, and replays."""

import pytest
import torch

from optical_scale.transport import sinkhorn_cost
from tests.unit.transport.problems import ragged_tokens

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
TIERS = pytest.mark.parametrize("backend", ["triton_pairs", "triton_stored", "triton_tiles"])


def problem(dtype=torch.bfloat16):
    batch = [t.cuda() for t in ragged_tokens([60, 17, 1], [50, 64, 3], width=384)]
    return batch[0].to(dtype), batch[1].to(dtype).requires_grad_(), *batch[2:]


def step(tokens, backend):
    result = sinkhorn_cost(*tokens, epsilon=0.05, iterations=10, backend=backend, check=False)
    (gradient,) = torch.autograd.grad(result.cost_B.sum(), tokens[1])
    return result.cost_B, gradient


@TIERS
def test_a_captured_step_replays_on_new_vectors(backend):
    tokens = problem()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step(tokens, backend)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step(tokens, backend)
    with torch.no_grad():
        tokens[0].copy_(tokens[0].flip(2))
    graph.replay()
    for mine, theirs in zip(captured, step(tokens, backend), strict=True):
        assert torch.equal(mine, theirs)


@TIERS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_compiled_kernels_agree_with_float64(backend, dtype):
    tokens = problem(dtype)
    wide = (tokens[0].double(), tokens[1].detach().double().requires_grad_(), *tokens[2:])
    expected = torch.autograd.grad(
        sinkhorn_cost(*wide, epsilon=0.05, iterations=10, backend="dense", domain="log").cost_B.sum(), wide[1]
    )[0]
    gradient = step(tokens, backend)[1]
    error = (gradient.double() - expected).norm() / expected.norm()
    assert error < {torch.float32: 1e-6, torch.bfloat16: 5e-3, torch.float16: 1e-3}[dtype]


@TIERS
def test_autocast_and_a_second_run_change_no_bit(backend):
    tokens = problem()
    with torch.autocast("cuda", dtype=torch.bfloat16):
        inside = step(tokens, backend)
    for mine, theirs in zip(inside, step(tokens, backend), strict=True):
        assert torch.equal(mine, theirs)
