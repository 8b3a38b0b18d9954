import pytest
import torch

from optical_scale.errors import TransportError
from optical_scale.transport import sinkhorn_cost, sinkhorn_cost_packed, solve, solve_packed
from optical_scale.transport.packed import PackedGroup, _similar
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
        ([0, 5, 4, 6], "falls from 5 to 4 in pair 1; it must rise from 0 to the 6 tokens of x"),
        ([0.0, 6.0], r"cu_seqlens_x is torch.float32 \(2,\); expected integers"),
        ([[0, 6]], r"cu_seqlens_x is torch.int64 \(1, 2\); expected integers"),
        ([0], r"cu_seqlens_x has shape \(1,\), which is no pair"),
        ([0, 6], "holds 1 pairs, cu_seqlens_y 2"),
    ],
)
@pytest.mark.parametrize("kind", [torch.tensor, list])
def test_bad_offsets_are_explained(cu_x, message, kind):
    with pytest.raises(TransportError, match=message):
        solve_packed(torch.randn(6, 4), torch.randn(5, 4), kind(cu_x), torch.tensor([0, 2, 5]))


def test_offsets_may_be_lists_or_arrays_and_start_may_be_none():
    _, x_XD, y_YD, cu_x, cu_y = packed()
    expected = solve_packed(x_XD, y_YD, cu_x, cu_y).f_X
    assert torch.equal(solve_packed(x_XD, y_YD, cu_x.tolist(), cu_y.numpy(), start=None).f_X, expected)
    sinkhorn_cost_packed(x_XD, y_YD, cu_x.tolist(), cu_y.numpy(), start=None)


@pytest.mark.parametrize("call", [solve_packed, sinkhorn_cost_packed])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": torch.full((7,), 0.1)}, r"epsilon has shape \(7,\); expected a number or \(6,\)"),
        ({"epsilon": torch.full((5,), 0.1)}, r"epsilon has shape \(5,\); expected a number or \(6,\)"),
        ({"epsilon": torch.full((6, 1), 0.1)}, r"epsilon has shape \(6, 1\)"),
        ({"mass": torch.full((7,), 0.1)}, r"mass has shape \(7,\)"),
        ({"marginal_x": torch.ones(30)}, r"marginal_x has shape \(30,\); expected \(31,\)"),
        ({"marginal_y": torch.ones(6, 30)}, r"marginal_y has shape \(6, 30\); expected \(50,\)"),
        ({"mask_x_BN": torch.ones(6, 9, dtype=torch.bool)}, "mask_x_BN is an option of padded pairs: cu_seqlens_x"),
        ({"start": (torch.zeros(31), torch.zeros(50))}, "start is an option of padded pairs"),
        # The values of one pair: numbers are those of the batch, whatever group it is solved in.
        ({"epsilon": torch.tensor([0.1, 0.1, 0.1, 0.1, -0.1, 0.1])}, r"epsilon is not .* \(pair 4 of 6\)"),
        ({"mass": [0.5, 0.5, 2.0, 0.5, 0.5, 0.5]}, r"mass is not .* \(pair 2 of 6: x has 1, y 1, mass is 2\)"),
    ],
)
def test_bad_options_are_explained_before_the_batch_is_divided(call, options, message):
    _, x_XD, y_YD, cu_x, cu_y = packed()
    with pytest.raises(TransportError, match=message):
        call(x_XD, y_YD, cu_x, cu_y, **options)


@pytest.mark.parametrize("call", [solve_packed, sinkhorn_cost_packed])
def test_errors_speak_of_the_batch_and_not_of_its_groups(call):
    _, x_XD, y_YD, cu_x, cu_y = packed()
    x_XD[cu_x[4]] = torch.nan
    with pytest.raises(TransportError, match=r"x holds NaN or infinity.* \(pair 4 of 6\)"):
        call(x_XD, y_YD, cu_x, cu_y)
    # Pairs 0 and 3 are of one size and share a group.
    x_XD[cu_x[0]] = x_XD[cu_x[3]] = torch.inf
    with pytest.raises(TransportError, match=r"\(pair 0, 3 of 6\)"):
        call(x_XD, y_YD, cu_x, cu_y)
    with pytest.raises(TransportError, match=r"x \(31, 8\) and y \(50, 7\) must agree in width"):
        call(x_XD, y_YD[:, :7], cu_x, cu_y)
    with pytest.raises(TransportError, match=r"y is a ndarray; expected a torch.Tensor"):
        call(x_XD, y_YD.numpy(), cu_x, cu_y)
    with pytest.raises(TransportError, match=r"x is torch.int64 \(31, 8\)"):
        call(x_XD.long(), y_YD, cu_x, cu_y)
    with pytest.raises(TransportError, match=r"iterations is 0"):
        call(x_XD, y_YD, cu_x, cu_y, iterations=0)


def test_values_that_are_not_packed_as_y_are_refused():
    _, x_XD, y_YD, cu_x, cu_y = packed()
    out = solve_packed(x_XD, y_YD, cu_x, cu_y)
    for values in (torch.randn(49, 3), torch.randn(51, 3), torch.randn(50)):
        with pytest.raises(TransportError, match=r"expected \(50, any width\), packed as y was"):
            out.barycentric(values)


def test_groups_say_whose_solutions_they_hold():
    _, x_XD, y_YD, cu_x, cu_y = packed()
    out = solve_packed(x_XD, y_YD, cu_x, cu_y)
    assert sorted(pair for group, _ in out.groups for pair in group.pairs.tolist()) == list(range(6))
    for group, padded in out.groups:
        assert isinstance(group, PackedGroup)
        for row, pair in enumerate(group.pairs.tolist()):
            own = padded.f_BN[row, group.mask_x_BN[row]]
            assert torch.equal(own, out.f_X[cu_x[pair] : cu_x[pair + 1]])
