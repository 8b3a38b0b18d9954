import pytest
import torch

from optical_scale.transport import dense, native
from optical_scale.transport.dense import DenseExp, DenseLog, Streamed
from optical_scale.transport.problem import build_problem
from tests.unit.transport.problems import ragged_tokens


def problem(**changes):
    settings = {"cost": "cosine", "epsilon": 0.02, "epsilon_mode": "absolute", "rho": None, "check": True} | changes
    return build_problem(*ragged_tokens([9, 4, 1], [3, 7, 5]), None, None, **settings)


@pytest.mark.parametrize("rho", [None, 0.1])
@pytest.mark.parametrize("relaxation", [1.0, 1.5])
@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("kind", [DenseExp, Streamed])
@pytest.mark.parametrize("threads", [1, 5])
def test_shifted_plain_and_log_iterates_agree(rho, relaxation, compiled, kind, threads, monkeypatch, torch_threads):
    if not compiled:
        monkeypatch.setattr(native, "sweeps", lambda: None)
    torch_threads(threads)
    one = problem(rho=rho, epsilon=0.05)
    start_BM, start_BN = 0.1 * torch.randn(3, 7), 0.5 + 0.1 * torch.randn(3, 9)
    expected = DenseLog(one, relaxation=relaxation).iterate(start_BM, 4, start_BN)
    for shift in (False, True):
        got = kind(one, shift=shift, relaxation=relaxation).iterate(start_BM, 4, start_BN)
        for mine, theirs in zip(got, expected, strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=0)


def test_chunks_of_the_batch_change_nothing(monkeypatch):
    whole = DenseExp(problem(), shift=False).iterate(torch.zeros(3, 7), 5)
    monkeypatch.setattr(dense, "_CPU_CHUNK", 1)
    parts = DenseExp(problem(), shift=False).iterate(torch.zeros(3, 7), 5)
    for mine, theirs in zip(parts, whole, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-7, rtol=0)


@pytest.mark.parametrize("relaxation", [1.0, 1.3])
def test_panels_of_rows_change_nothing_without_a_compiler(relaxation, monkeypatch):
    monkeypatch.setattr(native, "sweeps", lambda: None)
    batch = ragged_tokens([150, 70], [40, 33])
    one = build_problem(*batch, None, None, cost="cosine", epsilon=0.05, epsilon_mode="absolute", rho=None, check=True)
    whole = DenseExp(one, shift=False, relaxation=relaxation).iterate(torch.zeros(2, 40), 5)
    monkeypatch.setattr(dense, "_CPU_PANEL", 1)
    monkeypatch.setattr(dense, "_CPU_CHUNK", 1)
    panels = Streamed(one, shift=False, relaxation=relaxation).iterate(torch.zeros(2, 40), 5)
    for mine, theirs in zip(panels, whole, strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-6, rtol=0)


def test_shifted_kernel_has_maximum_one_in_every_row_and_column_with_mass():
    one = problem(epsilon=0.01)
    kernel_BNM = DenseExp(one, shift=True)._K_BNM
    assert kernel_BNM.max() == 1
    has_mass = (one.a_BN > 0)[:, :, None] & (one.b_BM > 0)[:, None, :]
    kept_BNM = kernel_BNM * has_mass
    assert (kept_BNM.amax(2)[one.a_BN > 0] > 0.999).all()
    assert (kept_BNM.amax(1)[one.b_BM > 0] > 0.999).all()


def test_opposite_tokens_at_the_smallest_exponential_epsilon():
    """Cost 0 or 2 everywhere, and a column no row likes: the widest range a cosine kernel can have."""
    x_BND = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]])
    y_BMD = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]])
    one = build_problem(
        x_BND, y_BMD, None, None, None, None, cost="cosine", epsilon=0.01, epsilon_mode="absolute", rho=None, check=True
    )
    operators = DenseExp(one, shift=True)
    plan_BNM = operators.apply_plan(*operators.iterate(torch.zeros(1, 3), 10), torch.eye(3)[None], 1).values
    torch.testing.assert_close(plan_BNM, torch.full((1, 3, 3), 1 / 9), atol=1e-6, rtol=0)
