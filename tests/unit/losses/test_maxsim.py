"""MaxSim against its definition."""

import pytest
import torch
from torch.nn.functional import normalize

from optical_scale.losses import maxsim as module
from optical_scale.losses.maxsim import maxsim


def by_definition(q_BQD, q_mask_BQ, d_KTD, d_mask_KT):
    scores = torch.einsum("bqd,ktd->bkqt", q_BQD, d_KTD).masked_fill(~d_mask_KT[None, :, None, :], -torch.inf)
    best = scores.amax(-1).masked_fill(~q_mask_BQ[:, None, :], 0.0)
    return best.sum(-1) / q_mask_BQ.sum(1).clamp_min(1)[:, None]


def problem(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    q_BQD = normalize(torch.randn(5, 4, 8, generator=generator, dtype=dtype), dim=-1).requires_grad_()
    d_KTD = normalize(torch.randn(7, 6, 8, generator=generator, dtype=dtype), dim=-1).requires_grad_()
    q_mask_BQ, d_mask_KT = (torch.rand(shape, generator=generator) > 0.3 for shape in ((5, 4), (7, 6)))
    q_mask_BQ[0] = False
    d_mask_KT[:, 2] = True
    return q_BQD, q_mask_BQ, d_KTD, d_mask_KT


@pytest.mark.parametrize("block", [1, 400, 1 << 22])
def test_value_and_gradient(monkeypatch, block):
    monkeypatch.setattr(module, "_BLOCK", block)
    q_BQD, q_mask_BQ, d_KTD, d_mask_KT = problem()
    weight_BK = torch.randn(5, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    results = []
    for function in (maxsim, by_definition):
        scores_BK = function(q_BQD, q_mask_BQ, d_KTD, d_mask_KT)
        results.append((scores_BK, *torch.autograd.grad((scores_BK * weight_BK).sum(), (q_BQD, d_KTD))))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)


def test_only_the_wanted_gradient():
    q_BQD, q_mask_BQ, d_KTD, d_mask_KT = problem(torch.float32)
    scores_BK = maxsim(q_BQD.detach(), q_mask_BQ, d_KTD, d_mask_KT)
    scores_BK.sum().backward()
    assert q_BQD.grad is None
    assert d_KTD.grad is not None


def test_a_query_without_tokens_scores_zero():
    assert torch.equal(maxsim(*problem(torch.float32))[0], torch.zeros(7))
