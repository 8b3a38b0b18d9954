"""Mistakes that keep a Sinkhorn solver right on easy inputs and make it slow or wrong on others.

Two more are tested where they arise: fresh allocations per panel in ``test_blockwise.py``, by the process's high-water
mark, and the interpreter's products of bfloat16 bit patterns in ``triton/test_tiles.py``.
"""

import pytest
import torch

from optical_scale.transport import native, sinkhorn_cost, solve
from tests.unit.transport.problems import ragged_tokens

BACKENDS = pytest.mark.parametrize("backend", ["dense", "streamed", "blockwise"])


class Products(torch.utils._python_dispatch.TorchDispatchMode):
    """Shapes of the right sides of batched products."""

    def __init__(self):
        super().__init__()
        self.right = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in ("bmm", "baddbmm"):
            self.right.append(tuple(args[-1].shape))
        return func(*args, **(kwargs or {}))


@BACKENDS
def test_no_batched_product_has_a_single_column(backend, monkeypatch):
    # torch takes 16 to 43 times as long for one as for the row vector from the left.
    monkeypatch.setattr(native, "sweeps", lambda: None)
    batch = ragged_tokens([40, 33], [38, 40])
    batch.y_BMD.requires_grad_()
    with Products() as products:
        sinkhorn_cost(*batch, epsilon=0.1, iterations=3, backend=backend, domain="exp").cost_B.sum().backward()
    assert not [shape for shape in products.right if shape[-1] == 1]
    assert products.right or backend != "dense"


@pytest.mark.parametrize("backend", ["dense", "blockwise"])
def test_masks_hold_against_potentials_of_any_size(backend):
    # A finite stand-in for minus infinity, as -1e9, would cancel against potentials of its size.
    batch = ragged_tokens([6, 3], [5, 4])
    huge = (batch.x_BND * 3e4, batch.y_BMD * 3e4)
    out = solve(*huge, *batch[2:], cost="dot", epsilon=1.0, iterations=5, backend=backend, domain="log")
    assert out.f_BN.abs().max() > 1e9
    plan_BNM = out.plan()
    # The plan's own entries are beyond float32 here: a unit in the last place of a potential is more than epsilon.
    assert torch.isfinite(out.f_BN).all()
    assert (plan_BNM[~batch.mask_x_BN] == 0).all()
    assert (plan_BNM.mT[~batch.mask_y_BM] == 0).all()


@BACKENDS
def test_bfloat16_vectors_never_make_a_bfloat16_cost(backend):
    # A cost rounded to 8 bits, divided by epsilon, would put errors of tens of percent into the plan at this epsilon.
    batch = ragged_tokens([12, 7], [9, 10], width=32)
    x_BND, y_BMD = (t.bfloat16() for t in batch[:2])
    settings = {"epsilon": 0.02, "iterations": 10}
    out = solve(x_BND, y_BMD, *batch[2:], backend=backend, **settings)
    exact = solve(x_BND.double(), y_BMD.double(), *batch[2:], backend="dense", domain="log", **settings)
    error = (out.plan().double() - exact.plan()).norm() / exact.plan().norm()
    assert error < 1e-5
