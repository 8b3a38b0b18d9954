import numpy as np
import pytest
import torch

from optical_scale.transport import native
from optical_scale.transport.geometry import build_geometry, unit_vectors
from optical_scale.transport.reference import as_array, cost_matrix
from tests.unit.transport.problems import crop, ragged_tokens

COSTS = ("cosine", "sqeuclidean", "dot")


@pytest.mark.parametrize("cost", COSTS)
def test_tiles_and_pairs_make_up_the_cost_matrix(cost):
    batch = ragged_tokens([6, 4], [3, 5])
    geometry = build_geometry(cost, *batch)
    whole_BNM = geometry.cost()
    tiles_BNM = torch.cat([geometry.cost(0, 4), geometry.cost(4, 6)], 1)
    torch.testing.assert_close(tiles_BNM, whole_BNM)
    torch.testing.assert_close(geometry.pairs(slice(1, 2)).cost(), whole_BNM[1:])
    for pair in range(2):
        x, y = crop(batch, pair)
        expected = cost_matrix(x[0], y[0], cost)
        np.testing.assert_allclose(as_array(whole_BNM[pair, : len(expected), : expected.shape[1]]), expected, atol=1e-5)


@pytest.mark.parametrize("cost", COSTS)
def test_cost_range_is_an_upper_bound(cost):
    geometry = build_geometry(cost, *ragged_tokens([6, 4], [3, 5]))
    cost_BNM = geometry.cost()
    assert (cost_BNM.amax((1, 2)) - cost_BNM.amin((1, 2)) <= geometry.cost_range()).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_half_precision_is_computed_in_float32_and_float64_stays(dtype):
    x_BND = torch.randn(1, 3, 4).to(dtype)
    geometry = build_geometry("cosine", x_BND, x_BND, None, None)
    assert geometry.p_BND.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(
        geometry.cost()[0].diagonal(), torch.zeros(3, dtype=geometry.p_BND.dtype), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("length", [1.0, 1e-30, 1e30])
def test_one_extreme_vector_changes_no_other_without_a_compiler(length, monkeypatch):
    monkeypatch.setattr(native, "sweeps", lambda: None)
    x_BTD = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    mask_BT = torch.tensor([[True, True, False], [True, True, True]])
    x_BTD[0, 2] = float("nan")
    x_BTD[1, 1] *= length
    unit_BTD, inverse_BT1 = unit_vectors(x_BTD, mask_BT)
    exact_BT1 = x_BTD.double().norm(dim=-1, keepdim=True)
    torch.testing.assert_close(unit_BTD[mask_BT].double(), (x_BTD.double() / exact_BT1)[mask_BT], atol=1e-7, rtol=1e-6)
    torch.testing.assert_close(inverse_BT1[mask_BT].double(), exact_BT1.reciprocal()[mask_BT], rtol=1e-6, atol=0)
    assert (unit_BTD[~mask_BT] == 0).all()
    assert (inverse_BT1[~mask_BT] == 0).all()


def test_unit_vectors_of_extreme_lengths_and_gradient_of_the_zero_vector():
    x_BND = torch.tensor([[[3e38, 3e38], [1e-38, 0.0], [0.0, 0.0]]])
    geometry = build_geometry("cosine", x_BND, x_BND, None, None)
    torch.testing.assert_close(geometry.p_BND.norm(dim=-1), torch.tensor([[1.0, 1.0, 0.0]]))
    product = torch.ones_like(x_BND)
    gradient = geometry.pull_back(product, geometry.inner(product, "x"), torch.ones(1, 3), "x")
    assert (gradient[0, 2] == 0).all()
