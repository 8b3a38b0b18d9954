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


def loss_and_gradient(teacher, student, **options):
    x_BTD = student.x_BTD.clone().requires_grad_()
    loss = objective(**options)(teacher, replace(student, x_BTD=x_BTD)).sum
    loss.backward()
    return loss.item(), x_BTD.grad


def finite_differences(teacher, student, options):
    step, numbers = 1e-4, student.x_BTD.numel()
    moves = step * torch.eye(numbers, dtype=torch.float64).view(numbers, *student.x_BTD.shape)
    moves = torch.cat([moves, -moves])  # every number up, then every number down: all of it is one batch
    moved = copies(student, len(moves))
    moved = replace(moved, x_BTD=moved.x_BTD + moves.flatten(0, 1))
    fixed = copies(teacher, len(moves)), copies(student, len(moves))
    up, down = values(fixed[0], moved, fixed=fixed, options=options).view(2, numbers, 2).sum(-1)
    return ((up - down) / (2 * step)).view_as(student.x_BTD)


@every_mode
def test_gradient_is_that_of_finite_differences(mode):
    teacher, student = states(N, 0), states(M, 1)
    _, found = loss_and_gradient(teacher, student, **MODES[mode])
    torch.testing.assert_close(found, finite_differences(teacher, student, MODES[mode]), rtol=1e-4, atol=1e-6)


def test_ipots_gradient_comes_as_near_as_its_steps_are_many():
    """The last of t kernels is that of epsilon, the one before it that of epsilon t / (t - 1)."""
    teacher, student = states(N, 0), states(M, 1)
    exact = finite_differences(teacher, student, {})
    errors = [
        (loss_and_gradient(teacher, student, solver="ipot", iterations=steps)[1] - exact).abs().max()
        / exact.abs().max()
        for steps in (50, 200)
    ]
    assert errors[1] < 0.3 * errors[0] < 0.004


def pot_plan(cost_NM, a_N, b_M, *, epsilon=0.2, epsilon_mode="absolute", rho=None, mass=None, **_):
    """POT's solution, unbalanced and partial ones relative to the product of the masses as here."""
    epsilon *= cost_NM.std() if epsilon_mode == "relative" else 1.0
    reference = np.outer(a_N, b_M)
    if rho is not None:
        return ot.unbalanced.sinkhorn_unbalanced(
            a_N, b_M, cost_NM, epsilon, rho, c=reference, numItermax=5000, stopThr=1e-14
        )
    if mass is not None:
        return ot.partial.entropic_partial_wasserstein(
            a_N, b_M, cost_NM - epsilon * np.log(reference), epsilon, m=mass, numItermax=20000, stopThr=1e-14
        )
    return ot.sinkhorn(a_N, b_M, cost_NM, epsilon, numItermax=20000, stopThr=1e-14)


def with_pots_plan(teacher, student, options):
    """<P, C> with POT's P, which is held constant; if debiased, less half of the student's own."""
    how, order, total = options.get("marginals"), options.get("order", 0.0), torch.zeros((), dtype=torch.float64)
    for first, weight in ((teacher, 1.0), (student, -0.5))[: 2 if options.get("debias") else 1]:
        sides = (costs(first, student, order), masses(first, how), masses(student, how), first.mask_BT, student.mask_BT)
        for cost, a, b, x_mask, y_mask in zip(*sides, strict=True):
            cost_NM = cost[x_mask][:, y_mask]
            a_N, b_M = a[x_mask].detach().numpy(), b[y_mask].detach().numpy()
            plan = pot_plan(cost_NM.detach().numpy(), a_N, b_M, **options)
            total = total + weight * (torch.from_numpy(plan) * cost_NM).sum()
    return total


@every_mode
def test_value_and_gradient_are_those_of_pots_plan(mode):
    teacher, student = states(N, 2), states(M, 3)
    value, gradient = loss_and_gradient(teacher, student, **MODES[mode])
    x_BTD = student.x_BTD.clone().requires_grad_()
    expected = with_pots_plan(teacher, replace(student, x_BTD=x_BTD), MODES[mode])
    expected.backward()
    torch.testing.assert_close(gradient, x_BTD.grad, rtol=1e-4, atol=1e-6)
    if not MODES[mode].get("debias"):  # which reports the dual value
        assert value == pytest.approx(expected.item(), rel=1e-5)
