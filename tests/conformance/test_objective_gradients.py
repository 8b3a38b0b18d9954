"""Gradients of every transport mode against finite differences in float64, and plans against POT and definitions."""

from dataclasses import replace

import numpy as np
import ot
import pytest
import torch
from pydantic import TypeAdapter

from optical_scale.batch import TokenStates
from optical_scale.config import objectives as schema
from optical_scale.recipes.build_objective import objective as build
from optical_scale.transport import solve_matrix

N, M, D = 5, 6, 4

MODES = {
    "balanced": {},
    "sharp": {"epsilon": 0.05},
    "relative": {"epsilon": 0.8, "epsilon_mode": "relative"},
    "annealed": {"anneal": [8.0, 4.0, 2.0]},
    "norm": {"marginals": "norm"},
    "attention": {"marginals": "attention"},
    "idf": {"marginals": "idf"},
    "unbalanced": {"rho": 0.3},
    "partial": {"mass": 0.6},
    "debiased": {"debias": True},
    "ordered": {"order": 0.7},
    "ordered and unbalanced": {"order": 0.7, "rho": 0.3},
    "all of it": {"order": 0.7, "debias": True, "marginals": "norm"},
    "idf, unbalanced": {"marginals": "idf", "rho": 0.3},
    "idf, partial": {"marginals": "idf", "mass": 0.6},
    "idf, debiased": {"marginals": "idf", "debias": True},
}
every_mode = pytest.mark.parametrize("mode", MODES)


def objective(**options):
    values = {"name": "optimal_transport", "epsilon": 0.2, "iterations": 2000}
    return build(TypeAdapter(schema.Objective).validate_python(values | options))


def states(tokens, seed, x_BTD=None):
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(2, tokens, D, generator=generator, dtype=torch.float64)
    mask_BT = torch.ones(2, tokens, dtype=torch.bool)
    mask_BT[1, -1] = False
    idf_BT = 0.1 + torch.rand(2, tokens, generator=generator)
    return TokenStates(drawn if x_BTD is None else x_BTD, mask_BT, torch.ones_like(mask_BT), idf_BT)


def copies(side, times):
    others = (tensor.repeat(times, 1) for tensor in (side.mask_BT, side.attention_BT, side.idf_BT))
    return TokenStates(side.x_BTD.repeat(times, 1, 1), *others)


def costs(teacher, student, order=0.0):
    """The definition, in float64."""
    unit = torch.nn.functional.normalize
    cost_BNM = 1 - unit(teacher.x_BTD, dim=-1) @ unit(student.x_BTD, dim=-1).transpose(1, 2)
    i_BN, j_BM = ((s.mask_BT.cumsum(1) - 0.5) / s.mask_BT.sum(1, keepdim=True) for s in (teacher, student))
    return cost_BNM + order * (i_BN[:, :, None] - j_BM[:, None, :]).square()


def masses(side, how):
    unit_BTD = torch.nn.functional.normalize(side.x_BTD, dim=-1) * side.mask_BT.unsqueeze(-1)
    attention_BT = torch.cosine_similarity(unit_BTD, unit_BTD.sum(1, keepdim=True), dim=-1).div(0.2).exp()
    known = {"norm": side.x_BTD.norm(dim=-1), "idf": side.idf_BT.double(), "attention": attention_BT}
    of_BT = known.get(how, torch.ones(()))
    weight_BT = of_BT * side.mask_BT.double()
    return weight_BT / weight_BT.sum(1, keepdim=True)


def values(teacher, student, *, fixed, options):
    """What the gradient belongs to: the dual value at masses and epsilon that do not move, from the cost matrix."""
    how, order = options.get("marginals", "uniform"), options.get("order", 0.0)

    def one(x, y, x0, y0):
        cost_BNM = costs(x, y, order)
        epsilon_B = torch.full((len(cost_BNM),), options.get("epsilon", 0.2), dtype=torch.float64)
        if options.get("epsilon_mode") == "relative":
            pairs = zip(costs(x0, y0, order), x0.mask_BT, y0.mask_BT, strict=True)
            epsilon_B = epsilon_B * torch.stack([c[a][:, b].std(correction=0) for c, a, b in pairs])
        return solve_matrix(
            cost_BNM, x.mask_BT, y.mask_BT, marginal_x=masses(x0, how), marginal_y=masses(y0, how), epsilon=epsilon_B,
            iterations=2000, rho=options.get("rho"), mass=options.get("mass"),
        ).dual_cost()  # fmt: skip

    total = one(teacher, student, *fixed)
    if options.get("debias"):
        total = total - 0.5 * one(student, student, fixed[1], fixed[1])
    return total


@every_mode
def test_gradient_is_that_of_finite_differences(mode):
    options = MODES[mode]
    teacher, student = states(N, 0), states(M, 1)
    x_BTD = student.x_BTD.clone().requires_grad_()
    output = objective(**options)(teacher, states(M, 1, x_BTD))
    output.sum.backward()
    step, numbers = 1e-4, x_BTD.numel()
    moves = step * torch.eye(numbers, dtype=torch.float64).view(numbers, *x_BTD.shape)
    moves = torch.cat([moves, -moves])  # every number up, then every number down: all of it is one batch
    moved = copies(student, len(moves))
    moved = replace(moved, x_BTD=moved.x_BTD + moves.flatten(0, 1))
    fixed = copies(teacher, len(moves)), copies(student, len(moves))
    up, down = values(fixed[0], moved, fixed=fixed, options=options).view(2, numbers, 2).sum(-1)
    torch.testing.assert_close(x_BTD.grad, ((up - down) / (2 * step)).view_as(x_BTD), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("mode", ["balanced", "norm", "idf", "ordered", "unbalanced", "partial", "idf, partial"])
def test_value_is_that_of_pot(mode):
    options = MODES[mode]
    teacher, student = states(N, 2), states(M, 3)
    found = objective(**options)(teacher, student).sum.item()
    expected = 0.0
    for cost, a, b, x_mask, y_mask in zip(
        costs(teacher, student, options.get("order", 0.0)),
        masses(teacher, options.get("marginals")),
        masses(student, options.get("marginals")),
        teacher.mask_BT,
        student.mask_BT,
        strict=True,
    ):
        cost_NM, a_N, b_M = cost[x_mask][:, y_mask].numpy(), a[x_mask].numpy(), b[y_mask].numpy()
        reference = np.outer(a_N, b_M)
        if "rho" in options:
            plan = ot.unbalanced.sinkhorn_unbalanced(
                a_N, b_M, cost_NM, 0.2, options["rho"], c=reference, numItermax=5000, stopThr=1e-14
            )
        elif "mass" in options:
            plan = ot.partial.entropic_partial_wasserstein(
                a_N, b_M, cost_NM - 0.2 * np.log(reference), 0.2, m=options["mass"], numItermax=20000, stopThr=1e-14
            )
        else:
            plan = ot.sinkhorn(a_N, b_M, cost_NM, 0.2, numItermax=5000, stopThr=1e-14)
        expected += (plan * cost_NM).sum()
    assert found == pytest.approx(expected, rel=1e-5)


def proximal_steps(cost_NM, a_N, b_M, beta, steps, inner):
    """IPOT by its definition: each step reweights the last plan by exp(-C / beta) and rescales it."""
    plan_NM, v_M = np.outer(a_N, b_M), np.ones(len(b_M))
    for _ in range(steps):
        kernel_NM = np.exp(-cost_NM / beta) * plan_NM
        for _ in range(inner):
            u_N = a_N / (kernel_NM @ v_M)
            v_M = b_M / (u_N @ kernel_NM)
        plan_NM = u_N[:, None] * kernel_NM * v_M
    return plan_NM


@pytest.mark.parametrize(("inner", "tolerance"), [(1, 0.03), (500, 0.01)])
def test_ipot_is_the_proximal_point_method(inner, tolerance):
    teacher, student = states(N, 4), states(M, 5)
    found = objective(solver="ipot", epsilon=0.02, iterations=50)(teacher, student)
    expected = 0.0
    for cost, x_mask, y_mask in zip(costs(teacher, student), teacher.mask_BT, student.mask_BT, strict=True):
        cost_NM = cost[x_mask][:, y_mask].numpy()
        a_N, b_M = (np.full(size, 1 / size) for size in cost_NM.shape)
        expected += (proximal_steps(cost_NM, a_N, b_M, 1.0, 50, inner) * cost_NM).sum()
    assert found.sum.item() == pytest.approx(expected, rel=tolerance)
    assert found.metrics["marginal_error"].item() / 2 < 0.02


def test_order_alone_decides_between_equal_tokens():
    same = torch.ones(1, 4, D, dtype=torch.float64)
    mask_BT = torch.ones(1, 4, dtype=torch.bool)
    side = TokenStates(same, mask_BT, mask_BT)
    flat = objective(epsilon=0.01)(side, side).metrics["effective_matches"].item()
    ordered = objective(epsilon=0.01, order=2.0)(side, side).metrics["effective_matches"].item()
    assert flat == pytest.approx(4.0, rel=1e-3)
    assert ordered == pytest.approx(1.0, abs=1e-2)


def test_debiasing_takes_the_pull_towards_the_mean_away():
    teacher = states(M, 6)
    for debias in (False, True):
        x_BTD = teacher.x_BTD.clone().requires_grad_()
        objective(epsilon=1.0, debias=debias)(teacher, states(M, 6, x_BTD)).sum.backward()
        assert (x_BTD.grad.abs().max().item() < 1e-6) == debias


def test_a_partial_plan_leaves_the_farthest_out():
    x_BTD = torch.eye(D, dtype=torch.float64)[None]
    y_BTD = x_BTD.clone()
    y_BTD[0, 3] = -x_BTD[0, :3].sum(0)
    mask_BT = torch.ones(1, D, dtype=torch.bool)
    sides = TokenStates(x_BTD, mask_BT, mask_BT), TokenStates(y_BTD, mask_BT, mask_BT)
    assert objective(epsilon=0.01, mass=0.75)(*sides).sum.item() == pytest.approx(0.0, abs=1e-3)
    assert objective(epsilon=0.01)(*sides).sum.item() > 0.2
