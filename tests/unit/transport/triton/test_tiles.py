import torch
import triton
import triton.language as tl

from optical_scale.transport.triton.tiles import product


@triton.jit
def multiply(left, right, out, INTERPRETED: tl.constexpr):
    i = tl.arange(0, 16)
    at = i[:, None] * 16 + i[None, :]
    zero = tl.zeros((16, 16), tl.float32)
    tl.store(out + at, product(tl.load(left + at), tl.load(right + at), zero, "ieee", INTERPRETED))


def test_the_interpreter_needs_bfloat16_cast_and_gets_it():
    left, right = (torch.randn(16, 16).to(torch.bfloat16) for _ in range(2))
    out = torch.empty(16, 16)
    multiply[(1,)](left, right, out, True)
    torch.testing.assert_close(out, left.float() @ right.float(), atol=1e-5, rtol=0)
