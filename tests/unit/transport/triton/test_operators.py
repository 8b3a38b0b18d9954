import pytest
import torch

from optical_scale.transport import sinkhorn_cost, solve
from optical_scale.transport.triton import launch
from optical_scale.transport.triton.operators import TritonOperators
from tests.unit.transport.problems import Tokens, ragged_tokens
from tests.unit.transport.triton.cases import TIERS, distance, exact, tokens

tiers = pytest.mark.parametrize("backend", TIERS)
domains = pytest.mark.parametrize("domain", ["exp", "log"])


def cost_and_gradients(batch, weights=(1.0, -2.0, 0.5), **settings):
    x_BND, y_BMD = (t.detach().clone().requires_grad_() for t in batch[:2])
    result = sinkhorn_cost(x_BND, y_BMD, *batch[2:], **settings)
    grads = torch.autograd.grad((result.cost_B * result.cost_B.new_tensor(weights)).sum(), (x_BND, y_BMD))
    return result.cost_B, *grads


def float64(batch):
    return Tokens(batch.x_BND.double(), batch.y_BMD.double(), *batch[2:])


@tiers
@pytest.mark.parametrize(("domain", "rho"), [("exp", None), ("log", None), ("log", 0.3), ("exp", 0.3)])
def test_cost_and_gradients_in_float32(backend, domain, rho):
    settings = {"epsilon": 0.1, "iterations": 3, "rho": rho}
    mine = cost_and_gradients(tokens(), backend=backend, domain=domain, **settings)
    theirs = cost_and_gradients(float64(tokens()), backend="dense", domain="log", **settings)
    assert [distance(m, t) for m, t in zip(mine, theirs, strict=True)] == pytest.approx([0.0] * 3, abs=1e-6)


@tiers
@domains
def test_cost_and_gradients_in_bfloat16(backend, domain):
    batch = tokens(torch.bfloat16)
    settings = {"epsilon": 0.05, "iterations": 2}
    mine = cost_and_gradients(batch, backend=backend, domain=domain, **settings)
    theirs = cost_and_gradients(float64(batch), backend="dense", domain="log", **settings)
    assert mine[1].dtype == torch.bfloat16
    assert [distance(m, t) for m, t in zip(mine, theirs, strict=True)] == pytest.approx([0.0] * 3, abs=5e-3)


@tiers
def test_bfloat16_vectors_are_multiplied_exactly(backend):
    # Rounding a unit vector again would cost two decimals at this epsilon; only the stored kernel may be rounded.
    batch = tokens(torch.bfloat16)
    settings = {"epsilon": 0.02, "iterations": 5}
    error = (solve(*batch, backend=backend, **settings).f_BN - exact(batch, **settings).f_BN).abs().max()
    assert error < (2e-4 if backend == "triton_stored" else 1e-6)


@tiers
@pytest.mark.parametrize(("cost", "epsilon"), [("sqeuclidean", 8.0), ("dot", 8.0), ("cosine", 0.005)])
def test_costs_that_need_the_log_domain(backend, cost, epsilon):
    batch = tokens(width=8)
    out = solve(*batch, cost=cost, epsilon=epsilon, iterations=3, backend=backend, domain="log")
    expected = exact(batch, cost=cost, epsilon=epsilon, iterations=3)
    assert distance(out.plan(), expected.plan()) < 3e-6 / min(epsilon, 0.1)
    assert distance(out.primal_cost(), expected.primal_cost()) < 1e-5
    assert (out.f_BN[~batch.mask_x_BN] == 0).all()


@tiers
@domains
def test_masks_and_zero_masses_get_exactly_nothing(backend, domain):
    batch = tokens()
    a_BN = batch.mask_x_BN * torch.arange(19).remainder(3).add(1)
    a_BN[0, 4] = 0
    a_BN = a_BN / a_BN.sum(1, keepdim=True)
    out = solve(*batch, marginal_x=a_BN, epsilon=0.05, iterations=2, backend=backend, domain=domain)
    ones_BM1 = torch.ones(3, 18, 1)
    assert (out.apply_plan(ones_BM1).squeeze(2)[a_BN == 0] == 0).all()
    b_BM = batch.mask_y_BM / batch.mask_y_BM.sum(1, keepdim=True)
    columns_BM = out.apply_plan(torch.ones(3, 19, 1), 0).squeeze(2)
    torch.testing.assert_close(columns_BM, b_BM, atol=1e-6, rtol=0)
    assert (columns_BM[~batch.mask_y_BM] == 0).all()
    # A finite stand-in for minus infinity would leave mass behind once potentials are of its size.
    huge = solve(batch.x_BND, batch.y_BMD * 1e4, *batch[2:], cost="dot", epsilon=1.0, iterations=2, backend=backend)
    assert (huge.apply_plan(ones_BM1)[~batch.mask_x_BN] == 0).all()
    assert torch.isfinite(huge.f_BN).all()


@tiers
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_norms_of_any_size(backend, dtype, scale):
    batch = tokens(dtype)
    scaled = Tokens(batch.x_BND * scale, batch.y_BMD * scale, *batch[2:])
    out = solve(*scaled, epsilon=0.1, iterations=2, backend=backend)
    stored = dtype == torch.bfloat16 and backend == "triton_stored"
    expected = exact(scaled, epsilon=0.1, iterations=2).f_BN.float()
    torch.testing.assert_close(out.f_BN, expected, atol=1e-3 if stored else 1e-6, rtol=0)


@tiers
def test_two_runs_are_bitwise_equal(backend):
    runs = [cost_and_gradients(tokens(), backend=backend, epsilon=0.03, iterations=1) for _ in range(2)]
    assert all(torch.equal(one, two) for one, two in zip(*runs, strict=True))


@tiers
def test_autocast_changes_nothing(backend):
    plain = cost_and_gradients(tokens(), backend=backend, epsilon=0.05, iterations=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = cost_and_gradients(tokens(), backend=backend, epsilon=0.05, iterations=1)
    assert all(torch.equal(one, two) for one, two in zip(plain, inside, strict=True))


@tiers
def test_a_second_solve_continues_where_the_first_stopped(backend):
    out = solve(*tokens(), epsilon=0.05, iterations=2, backend=backend)
    halfway = solve(*tokens(), epsilon=0.05, iterations=1, backend=backend)
    f_BN, g_BM = halfway.operators.iterate(halfway.g_BM, 1)
    torch.testing.assert_close(f_BN, out.f_BN, atol=5e-7, rtol=0)
    torch.testing.assert_close(g_BM, out.g_BM, atol=5e-7, rtol=0)


@pytest.mark.parametrize("backend", TIERS[1:])
def test_several_blocks_of_rows_and_columns(backend):
    batch = ragged_tokens([70], [85], width=8)
    out = solve(*batch, epsilon=0.05, iterations=1, backend=backend)
    expected = exact(batch, epsilon=0.05, iterations=1)
    assert distance(out.apply_plan(batch.y_BMD), expected.apply_plan(batch.y_BMD.double())) < 1e-6
    assert distance(out.apply_plan(batch.x_BND, 0), expected.apply_plan(batch.x_BND.double(), 0)) < 1e-6


@domains
@pytest.mark.parametrize("merged", [False, True])
def test_panels_agree_with_a_program_that_owns_its_pair(domain, merged, monkeypatch):
    if merged:
        monkeypatch.setattr(launch, "_REREAD_BYTES", 0)
    batch = ragged_tokens([20], [9])
    problem = solve(*batch, epsilon=0.05, iterations=1).problem
    many = TritonOperators(problem, "stored", log_domain=domain == "log")
    grid = launch.SweepGrid.of(batch.x_BND.device, 1, 20, 9, owned=False)
    assert grid.panels == 3
    assert grid.merged == merged
    monkeypatch.setattr("optical_scale.transport.triton.operators.PAIR_ELEMENTS", 1)
    owned = TritonOperators(problem, "pairs", log_domain=domain == "log")
    g_BM = torch.zeros(1, 9)
    for mine, theirs in zip(many.iterate(g_BM, 2), owned.iterate(g_BM, 2), strict=True):
        torch.testing.assert_close(mine, theirs, atol=5e-7, rtol=0)


@domains
def test_more_columns_than_a_sweep_holds(domain, monkeypatch):
    expected = exact(tokens(), epsilon=0.05, iterations=3)
    monkeypatch.setattr("optical_scale.transport.triton.operators.SWEEP_COLUMNS", 16)
    out = solve(*tokens(), epsilon=0.05, iterations=3, backend="triton_stored", domain=domain)
    torch.testing.assert_close(out.f_BN, expected.f_BN.float(), atol=5e-7, rtol=0)
    torch.testing.assert_close(out.g_BM, expected.g_BM.float(), atol=5e-7, rtol=0)


def test_columns_are_split_where_rows_cannot_fill_the_device():
    batch = ragged_tokens([20], [300])
    out = solve(*batch, epsilon=0.05, iterations=2, backend="triton_tiles", domain="log")
    parts, span = launch.column_parts(batch.x_BND.device, 1, 300, 64)
    assert (parts, span) == (3, 128)
    torch.testing.assert_close(out.f_BN, exact(batch, epsilon=0.05, iterations=2).f_BN.float(), atol=5e-7, rtol=0)


@pytest.mark.parametrize(
    ("dtype", "domain", "stored"),
    [("bfloat16", "exp", "bfloat16"), ("bfloat16", "log", "float32"), ("float32", "exp", "float32")],
)
def test_what_is_stored_is_the_kernel_never_a_rounded_cost(dtype, domain, stored):
    batch = tokens(getattr(torch, dtype))
    operators = solve(*batch, epsilon=0.05, iterations=1, backend="triton_stored", domain=domain).operators
    assert operators._stored.dtype == getattr(torch, stored)
    # cosine / epsilon in powers of two; the exponential domain holds its exponential, rounded once.
    unit = [torch.nn.functional.normalize(t.nan_to_num().double(), dim=-1) for t in batch[:2]]
    inner = unit[0] @ unit[1].mT / 0.05
    both_BNM = batch.mask_x_BN[:, :, None] & batch.mask_y_BM[:, None]
    held = operators._stored.double() if domain == "exp" else torch.exp2(operators._stored.double())
    relative = (held / inner.exp() - 1)[both_BNM].abs().max()
    # The interpreter truncates to bfloat16 (2^-7) where the hardware rounds (2^-8).
    assert relative < (2**-7 if stored == "bfloat16" else 1e-5)


@tiers
@pytest.mark.parametrize("domain", ["exp", "log"])
def test_inactive_pairs_are_left_alone(backend, domain):
    operators = solve(*tokens(), epsilon=0.05, iterations=1, backend=backend, domain=domain).operators
    g_BM = torch.zeros(3, 18)
    everyone = operators.iterate(g_BM, 2)
    some = operators.iterate_some(g_BM, 2, torch.tensor([True, False, True]))
    assert torch.equal(some[1][[0, 2]], everyone[1][[0, 2]])
    assert not torch.equal(some[1][1], everyone[1][1])


def test_a_tolerance_never_waits_for_the_device():
    waits = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default):
                waits.append(func)
            return func(*args, **(kwargs or {}))

    settings = {"epsilon": 0.05, "iterations": 60, "tolerance": 1e-4, "check": False}
    with Watch():
        out = solve(*tokens(), backend="triton_pairs", **settings)
    assert waits == []
    expected = solve(*tokens(), backend="dense", domain="exp", **settings)
    assert torch.equal(out.iterations_B, expected.iterations_B)
    assert len(set(out.iterations_B.tolist())) > 1
    torch.testing.assert_close(out.f_BN, expected.f_BN, atol=1e-6, rtol=0)
