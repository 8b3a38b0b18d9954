import pytest
import torch

from optical_scale.errors import TransportError
from optical_scale.transport import sinkhorn_cost, sinkhorn_cost_packed, solve, solve_packed
from optical_scale.transport.packed import _similar
from tests.unit.transport.problems import ragged_tokens

LENGTHS_X, LENGTHS_Y = [9, 1, 4, 9, 2, 6], [3, 5, 7, 3, 2, 30]


def packed():
    batch = ragged_tokens(LENGTHS_X, LENGTHS_Y)
    cu = [torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0) for lengths in (LENGTHS_X, LENGTHS_Y)]
    return batch, batch.x_BND[batch.mask_x_BN], batch.y_BMD[batch.mask_y_BM], *cu


def test_packed_equals_padded():
    batch, x_XD, y_YD, cu_x, cu_y = packed()
    expected, got = solve(*batch), solve_packed(x_XD, y_YD, cu_x, cu_y)
    torch.testing.assert_close(got.f_X, expected.f_BN[batch.mask_x_BN], atol=1e-6, rtol=0)
    torch.testing.assert_close(got.g_Y, expected.g_BM[batch.mask_y_BM], atol=1e-6, rtol=0)
    torch.testing.assert_close(got.primal_cost(), expected.primal_cost(), atol=1e-6, rtol=0)
    torch.testing.assert_close(got.marginal_error_B, expected.marginal_error_B, atol=2e-5, rtol=0)
    values = torch.randn(len(y_YD), 3)
    padded = torch.zeros(*batch.mask_y_BM.shape, 3)
    padded[batch.mask_y_BM] = values
    image = expected.barycentric(padded)[batch.mask_x_BN]
    torch.testing.assert_close(got.barycentric(values), image, atol=1e-4, rtol=0)


def test_packed_gradients_and_marginals_equal_padded():
    batch, x_XD, y_YD, cu_x, cu_y = packed()
    epsilon_B = torch.linspace(0.02, 0.2, 6)
    weights_B = torch.randn(6)
    a_BN = batch.mask_x_BN * torch.rand(batch.mask_x_BN.shape)
    a_BN = a_BN / a_BN.sum(1, keepdim=True)
    y_BMD = batch.y_BMD.requires_grad_()
    padded = sinkhorn_cost(batch.x_BND, y_BMD, *batch[2:], marginal_x=a_BN, epsilon=epsilon_B)
    (expected,) = torch.autograd.grad((padded.cost_B * weights_B).sum(), y_BMD)
    y_YD = y_YD.detach().requires_grad_()
    marginal_x = a_BN[batch.mask_x_BN]
    cost = sinkhorn_cost_packed(x_XD, y_YD, cu_x, cu_y, marginal_x=marginal_x, epsilon=epsilon_B)
    torch.testing.assert_close(cost.cost_B, padded.cost_B, atol=1e-6, rtol=0)
    torch.testing.assert_close(cost.epsilon_B, epsilon_B)
    (got,) = torch.autograd.grad((cost.cost_B * weights_B).sum(), y_YD)
    torch.testing.assert_close(got, expected[batch.mask_y_BM], atol=1e-6, rtol=0)


def test_groups_hold_every_pair_once_and_little_padding():
    generator = torch.Generator().manual_seed(0)
    lengths = [torch.randint(1, 100, (200,), generator=generator).tolist() for _ in range(2)]
    groups = _similar(*lengths)
    assert sorted(pair for group in groups for pair in group) == list(range(200))
    for group in groups:
        filled = sum(lengths[0][pair] * lengths[1][pair] for pair in group)
        widest = [max(side[pair] for pair in group) for side in lengths]
        assert filled >= 0.75 * len(group) * widest[0] * widest[1]
    assert len(_similar([7] * 50, [9] * 50)) == 1


@pytest.mark.parametrize(
    ("cu_x", "message"),
    [
        ([0, 4, 5], "must rise from 0 to the 6 tokens"),
        ([0, 4, 4, 6], "pair 1 of cu_seqlens_x is an empty sequence"),
        ([0, 5, 4, 6], "must rise"),
        ([0.0, 6.0], "expected tokens"),
        ([0, 6], "holds 1 pairs, cu_seqlens_y 2"),
    ],
)
def test_bad_offsets_are_explained(cu_x, message):
    with pytest.raises(TransportError, match=message):
        solve_packed(torch.randn(6, 4), torch.randn(5, 4), torch.tensor(cu_x), torch.tensor([0, 2, 5]))
