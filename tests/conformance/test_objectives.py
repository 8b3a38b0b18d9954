"""What every objective must do, on random token states of uneven lengths."""

from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from pydantic import TypeAdapter

from optical_scale.batch import PhraseRegions, TokenStates
from optical_scale.config import objectives as schema
from optical_scale.config.metrics import OF_OBJECTIVES, of_objective
from optical_scale.losses.objective import Moment, at
from optical_scale.recipes.build_objective import objective as build
from tests.conformance.test_query_lists import LISTS
from tests.support.processes import run_ranks

B, N, M, D = 6, 7, 9, 16

OBJECTIVES = {
    "optimal_transport": {"name": "optimal_transport", "epsilon": 0.05, "iterations": 40},
    "relative_annealed": {
        "name": "optimal_transport",
        "epsilon": 0.5,
        "epsilon_mode": "relative",
        "anneal": [4, 2],
        "iterations": 40,
    },
    "debiased": {"name": "optimal_transport", "epsilon": 0.1, "iterations": 40, "debias": True},
    "debiased_relative": {"name": "optimal_transport", "epsilon": 0.5, "epsilon_mode": "relative", "debias": True},
    "norm_marginals": {"name": "optimal_transport", "epsilon": 0.05, "iterations": 40, "marginals": "norm"},
    "attention_marginals": {"name": "optimal_transport", "epsilon": 0.05, "iterations": 40, "marginals": "attention"},
    "idf_marginals": {"name": "optimal_transport", "epsilon": 0.05, "iterations": 40, "marginals": "idf"},
    "unbalanced": {"name": "optimal_transport", "epsilon": 0.05, "iterations": 40, "rho": 0.5},
    "partial": {"name": "optimal_transport", "epsilon": 0.1, "iterations": 40, "mass": 0.8},
    "ipot": {"name": "optimal_transport", "epsilon": 0.05, "iterations": 20, "solver": "ipot"},
    "order": {"name": "optimal_transport", "epsilon": 0.05, "iterations": 40, "order": 0.5},
    "everything": {
        "name": "optimal_transport",
        "epsilon": 0.1,
        "iterations": 40,
        "order": 0.5,
        "marginals": "norm",
        "debias": True,
    },
    "mse": {"name": "mse"},
    "mse_idf": {"name": "mse", "token_weights": "idf"},
    "token_mse": {"name": "token_mse", "epsilon": 0.05, "iterations": 40},
    "token_kl": {"name": "token_kl", "epsilon": 0.05, "iterations": 40, "temperature": 0.2},
    "greedy": {"name": "greedy"},
    "greedy_both": {"name": "greedy", "direction": "both"},
    "siglip": {"name": "siglip", "temperature": 0.1, "bias": -5.0},
    "list_kl": {"name": "list_kl", "temperature": 0.1},
    "list_kl_dense": {"name": "list_kl", "temperature": 0.1, "scores": "dense"},
    "list_kl_idf": {"name": "list_kl", "temperature": 0.1, "token_weights": "idf"},
    "turns": {"name": "contrastive", "temperature": 0.1, "exchange": "turns"},
    "contrastive": {"name": "contrastive", "temperature": 0.1},
    "late_interaction": {"name": "contrastive", "temperature": 0.1, "late_interaction": 0.5},
    "contrastive_idf": {
        "name": "contrastive",
        "temperature": 0.1,
        "late_interaction": 0.5,
        "token_weights": "idf",
    },
    "search": {"name": "contrastive", "temperature": 0.1, "dense": 0.0, "late_interaction": 1.0, "symmetric": False},
    "region_alignment": {"name": "region_alignment", "temperature": 0.2},
    "layers": {
        "name": "mixture",
        "parts": [
            {"weight": 1.0, "objective": {"name": "mse"}},
            {
                "weight": 0.5,
                "objective": {"name": "optimal_transport", "epsilon": 0.05},
                "layers": {"teacher": 3, "student": 1},
            },
        ],
    },
    "mixture": {
        "name": "mixture",
        "parts": [
            {"weight": 2.0, "objective": {"name": "optimal_transport", "epsilon": 0.05}},
            {"weight": 0.5, "objective": {"name": "mse"}},
        ],
    },
}
# The negatives of a contrastive pair are the other pairs of its batch, so the sum of two halves is another loss.
INTERACTING = (
    "contrastive",
    "contrastive_idf",
    "late_interaction",
    "search",
    "turns",
    "siglip",
    "list_kl",
    "list_kl_dense",
    "list_kl_idf",
)
SEPARABLE = tuple(name for name in OBJECTIVES if name not in INTERACTING)
# Tokens that nobody chooses, or that a partial plan leaves where they are, learn nothing.
LEAVING_TOKENS = (
    "greedy",
    "greedy_both",
    "partial",
    "search",
    "list_kl",
    "list_kl_dense",
    "list_kl_idf",
    "region_alignment",
)
# The teacher's side is a target, whoever made it.
TARGET = ("token_mse", "token_kl")
# Boxes say where phrases belong, whatever the teacher would attend to; see tests/unit/losses/test_region_alignment.py.
FROM_BOXES = ("region_alignment",)

every_objective = pytest.mark.parametrize("name", OBJECTIVES)
every_separable = pytest.mark.parametrize("name", SEPARABLE)


def objective(name):
    built = build(TypeAdapter(schema.Objective).validate_python(OBJECTIVES[name]))
    if name == "layers":
        return lambda teacher, student: built(with_layer(teacher, 3), with_layer(student, 1))
    if name not in FROM_BOXES:
        return built
    return lambda teacher, student: at(built, Moment(regions=phrases(teacher, student)))(teacher, student)


def with_layer(batch, number):
    """The same with an inner layer, which the output follows from."""
    return replace(batch, layers={number: batch.x_BTD.roll(1, -1)})


def phrases(teacher, student):
    """Phrases and regions that follow from each row's numbers of tokens alone; of three rows one has none."""
    rows, tokens_FN, patches_FM = [], [], []
    for row, (n, m) in enumerate(zip(teacher.mask_BT.sum(1).tolist(), student.mask_BT.sum(1).tolist(), strict=True)):
        for phrase in range((n + m) % 3):
            rows.append(row)
            tokens_FN.append([place in (phrase, n - 1) for place in range(N)])
            patches_FM.append([(place < m) * ((place + phrase) % 3) / 2 for place in range(M)])
            patches_FM[-1][phrase] = 1.0
    return PhraseRegions(torch.tensor(rows), torch.tensor(tokens_FN), torch.tensor(patches_FM))


def states(tokens, seed, rows=B, gradient=False):
    """Random vectors; row b has between two real tokens, first and last of which are special, and ``tokens``."""
    generator = torch.Generator().manual_seed(seed)
    x_BTD = torch.randn(rows, tokens, D, generator=generator)
    lengths_B1 = torch.randint(4, tokens + 1, (rows, 1), generator=generator)
    position_1T = torch.arange(tokens)[None]
    attention_BT = position_1T < lengths_B1
    mask_BT = (position_1T > 0) & (position_1T < lengths_B1 - 1)
    idf_BT = (0.1 + torch.rand(rows, tokens, generator=generator)) * attention_BT
    return TokenStates(x_BTD.requires_grad_(gradient), mask_BT, attention_BT, idf_BT)


def rows_of(batch, rows):
    return TokenStates(batch.x_BTD[rows], batch.mask_BT[rows], batch.attention_BT[rows], batch.idf_BT[rows])


def padded(batch, extra, value):
    shape = (len(batch), extra)
    off_BT = torch.zeros(shape, dtype=torch.bool)
    return TokenStates(
        torch.cat([batch.x_BTD, torch.full((*shape, D), value)], 1),
        torch.cat([batch.mask_BT, off_BT], 1),
        torch.cat([batch.attention_BT, off_BT], 1),
        torch.cat([batch.idf_BT, torch.full(shape, value)], 1),
    )


def leaf(batch):
    return replace(batch, x_BTD=batch.x_BTD.detach().clone().requires_grad_())


def test_the_union_is_covered():
    members = {member.model_fields["name"].annotation.__args__[0] for member in schema.Objective.__args__[0].__args__}
    assert members == {values["name"] for values in (*OBJECTIVES.values(), *LISTS.values())}
    assert members == {*OF_OBJECTIVES, "mixture"}


@every_objective
def test_alarms_know_what_it_reports(name):
    config = TypeAdapter(schema.Objective).validate_python(OBJECTIVES[name])
    assert sorted(objective(name)(states(N, 0), states(M, 1)).metrics) == sorted(of_objective(config))


@every_objective
@pytest.mark.parametrize("value", [0.0, 3.0])
def test_padding_changes_nothing(name, value):
    teacher, student = states(N, 0), states(M, 1, gradient=True)
    plain = objective(name)(teacher, student)
    (expected,) = torch.autograd.grad(plain.sum, student.x_BTD)
    more = leaf(padded(student, 4, value))
    output = objective(name)(padded(teacher, 3, value), more)
    (gradient,) = torch.autograd.grad(output.sum, more.x_BTD)
    torch.testing.assert_close(output.sum, plain.sum, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient[:, :M], expected, rtol=1e-4, atol=1e-6)
    assert not gradient[:, M:].any()
    assert output.metrics.keys() == plain.metrics.keys()
    for metric, total in plain.metrics.items():
        torch.testing.assert_close(output.metrics[metric], total, rtol=1e-4, atol=1e-5)


@every_separable
def test_a_split_batch_has_the_same_sum_and_gradient(name):
    teacher, student = states(N, 2), states(M, 3, gradient=True)
    whole = objective(name)(teacher, student)
    (expected,) = torch.autograd.grad(whole.sum, student.x_BTD)
    parts = [objective(name)(rows_of(teacher, rows), rows_of(student, rows)) for rows in (slice(0, 2), slice(2, None))]
    (gradient,) = torch.autograd.grad(sum(part.sum for part in parts), student.x_BTD)
    torch.testing.assert_close(sum(part.sum for part in parts), whole.sum, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)
    assert sum(part.weight for part in parts) == whole.weight == B
    for metric, total in whole.metrics.items():
        torch.testing.assert_close(sum(part.metrics[metric] for part in parts), total, rtol=1e-4, atol=1e-5)


@every_objective
def test_a_contrastive_split_is_another_loss_and_only_that(name):
    teacher, student = states(N, 2), states(M, 3)
    whole = objective(name)(teacher, student).sum
    halves = sum(
        objective(name)(rows_of(teacher, rows), rows_of(student, rows)).sum for rows in (slice(0, 3), slice(3, None))
    )
    assert (whole > halves + 0.1) == (name not in SEPARABLE)


@every_objective
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_loss_and_gradient_are_finite(name, scale):
    teacher, student = states(N, 4), states(M, 5)
    student = leaf(replace(student, x_BTD=student.x_BTD * scale))
    output = objective(name)(teacher, student)
    output.sum.backward()
    assert output.sum.isfinite()
    assert student.x_BTD.grad.isfinite().all()
    assert student.x_BTD.grad.abs().sum() > 0
    assert all(value.ndim == 0 and not value.requires_grad for value in output.metrics.values())


@every_objective
def test_only_real_tokens_get_gradient(name):
    teacher, student = states(N, 4, gradient=True), states(M, 5, gradient=True)
    objective(name)(teacher, student).sum.backward()
    for side in (student,) if name in TARGET else (teacher, student):
        assert not side.x_BTD.grad[~side.attention_BT].any()
        assert name in LEAVING_TOKENS or side.x_BTD.grad[side.mask_BT].abs().sum(-1).min() > 0
    frozen, student = states(N, 4), states(M, 5, gradient=True)
    objective(name)(frozen, student).sum.backward()
    assert frozen.x_BTD.grad is None
    assert student.x_BTD.grad.any()


def test_transport_leaves_special_tokens_alone():
    student = states(M, 5, gradient=True)
    objective("optimal_transport")(states(N, 4), student).sum.backward()
    assert not student.x_BTD.grad[~student.mask_BT].any()


def plain_contrast(seed):
    """Rows that are far apart, so that the right one is by far the nearest."""
    teacher = states(N, seed)
    centre_B1D = 3 * torch.eye(B, D)[:, None]
    return replace(teacher, x_BTD=teacher.x_BTD * 0.1 + centre_B1D)


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name not in FROM_BOXES])
def test_the_minimum_is_the_teacher(name):
    """That of boxes is where tokens attend inside, as tests/unit/losses/test_region_alignment.py has it."""
    teacher = plain_contrast(6)
    loss = objective(name)
    at_teacher = loss(teacher, leaf(teacher)).sum.detach()
    generator = torch.Generator().manual_seed(0)
    for size in (0.3, 1.0):
        noise = torch.randn(teacher.x_BTD.shape, generator=generator)
        moved = replace(teacher, x_BTD=teacher.x_BTD + size * noise)
        assert loss(teacher, moved).sum > at_teacher
    wrong = rows_of(teacher, torch.arange(B).roll(1))
    assert loss(teacher, wrong).sum > at_teacher


def test_the_loss_of_the_teacher_itself_is_zero():
    teacher = states(N, 6)
    torch.testing.assert_close(objective("mse")(teacher, teacher).sum, torch.tensor(0.0), atol=1e-6, rtol=0)
    sharp = build(schema.OptimalTransport(name="optimal_transport", epsilon=0.01, iterations=100))
    torch.testing.assert_close(sharp(teacher, teacher).sum, torch.tensor(0.0), atol=1e-4, rtol=0)


@every_objective
def test_the_order_of_pairs_is_irrelevant(name):
    teacher, student = states(N, 7), states(M, 8, gradient=True)
    order = torch.randperm(B, generator=torch.Generator().manual_seed(1))
    plain = objective(name)(teacher, student)
    (expected,) = torch.autograd.grad(plain.sum, student.x_BTD)
    shuffled = leaf(rows_of(student, order))
    output = objective(name)(rows_of(teacher, order), shuffled)
    (gradient,) = torch.autograd.grad(output.sum, shuffled.x_BTD)
    torch.testing.assert_close(output.sum, plain.sum, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, expected[order], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["contrastive", "late_interaction", "search", "turns"])
def test_the_same_teacher_sentence_is_no_negative(name):
    teacher, student = states(N, 9, rows=2), states(M, 10, rows=2, gradient=True)
    once = objective(name)(rows_of(teacher, [0]), rows_of(student, [0]))
    assert once.sum.item() == pytest.approx(0.0, abs=1e-6)
    twice = objective(name)(rows_of(teacher, [0, 0]), student)
    assert twice.sum.item() == pytest.approx(0.0, abs=1e-6)
    assert objective(name)(teacher, student).sum.item() > 1e-3
    twice.sum.backward()
    assert student.x_BTD.grad.isfinite().all()


def projected_loss(loss, teacher, student):
    """The loss of both sides after a projection, and that projection, which all ranks share."""
    shared_DD = torch.randn(D, D, generator=torch.Generator().manual_seed(3)).requires_grad_()
    projected = replace(student, x_BTD=student.x_BTD @ shared_DD)
    taught = replace(teacher, x_BTD=teacher.x_BTD @ (shared_DD + 1.0))
    return loss(taught, projected), shared_DD


def compare_ranks(file):
    """On every rank: this rank's part of a batch, after the engine's averaging, equals the whole batch alone."""
    rank, size = dist.get_rank(), dist.get_world_size()
    for (name, first), expected in torch.load(file).items():
        part = slice(first, B) if rank else slice(0, first)
        mine = rows_of(states(M, 12), part)
        # One rank pads less than the other, as real batches do.
        cut = M + 2 if rank or not first else int(mine.attention_BT.sum(1).max())
        mine = padded(mine, 2, 0.0)
        mine = TokenStates(mine.x_BTD[:, :cut], mine.mask_BT[:, :cut], mine.attention_BT[:, :cut], mine.idf_BT[:, :cut])
        for known in (None, (first, B - first)):
            loss = at(objective(name), Moment(rows=known))
            output, shared_DD = projected_loss(loss, rows_of(states(N, 11), part), mine)
            (output.sum * (size / B)).backward()
            found = [output.sum.detach() / B, shared_DD.grad / size, sum(output.metrics.values())]
            for total in found:
                dist.all_reduce(total)
            for value, wanted in zip(found, expected, strict=True):
                torch.testing.assert_close(value, wanted, rtol=1e-4, atol=2e-6, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.distributed
def test_two_processes_are_one_batch_however_it_is_divided(tmp_path):
    expected = {}
    for name in INTERACTING:
        output, shared_DD = projected_loss(objective(name), states(N, 11), states(M, 12))
        (output.sum / B).backward()
        whole = output.sum.detach() / B, shared_DD.grad, sum(output.metrics.values())
        expected |= {(name, first): whole for first in (0, 1, B // 2)}
    torch.save(expected, tmp_path / "whole.pt")
    run_ranks("tests.conformance.test_objectives", "compare_ranks", tmp_path / "whole.pt")
