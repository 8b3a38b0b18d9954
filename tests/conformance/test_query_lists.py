"""What every objective must do that learns from negatives of queries, on random token states of uneven lengths."""

from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from pydantic import TypeAdapter

from optical_scale.batch import Queries, TokenStates
from optical_scale.config import objectives as schema
from optical_scale.config.metrics import OF_OBJECTIVES
from optical_scale.losses.objective import Moment, Passages, at
from optical_scale.recipes.build_objective import objective as build
from tests.support.processes import run_ranks

B, N, M, D = 5, 7, 6, 16
OWNERS = (0, 0, 1, 3, 3, 3, 4)
"""Row of each negative: pair 2 has none."""

LISTS = {
    "contrastive": {"name": "contrastive", "temperature": 0.1},
    "late_interaction": {"name": "contrastive", "temperature": 0.1, "late_interaction": 0.5},
    "search": {"name": "contrastive", "temperature": 0.1, "dense": 0, "late_interaction": 1, "symmetric": False},
    "score_kl": {"name": "score_kl", "temperature": 0.1, "score_temperature": 2.0},
    "score_kl_dense": {"name": "score_kl", "temperature": 0.1, "scores": "dense"},
    "margin_mse": {"name": "margin_mse", "temperature": 0.1},
    "margin_mse_dense": {"name": "margin_mse", "temperature": 0.1, "scores": "dense"},
}
SEPARABLE = tuple(name for name in LISTS if name.startswith(("score", "margin")))

every_objective = pytest.mark.parametrize("name", LISTS)
every_separable = pytest.mark.parametrize("name", SEPARABLE)


def objective(name):
    return build(TypeAdapter(schema.Objective).validate_python(LISTS[name]))


def states(rows, tokens, seed):
    """Random vectors; each row has at least two real tokens, first and last of which are special."""
    generator = torch.Generator().manual_seed(seed)
    x_BTD = torch.randn(rows, tokens, D, generator=generator)
    lengths_B1 = torch.randint(4, tokens + 1, (rows, 1), generator=generator)
    position_1T = torch.arange(tokens)[None]
    attention_BT = position_1T < lengths_B1
    return TokenStates(x_BTD, (position_1T > 0) & (position_1T < lengths_B1 - 1), attention_BT)


def rows_of(batch, rows):
    return TokenStates(batch.x_BTD[rows], batch.mask_BT[rows], batch.attention_BT[rows])


def padded(batch, extra, value):
    shape = (len(batch), extra)
    off_BT = torch.zeros(shape, dtype=torch.bool)
    return TokenStates(
        torch.cat([batch.x_BTD, torch.full((*shape, D), value)], 1),
        torch.cat([batch.mask_BT, off_BT], 1),
        torch.cat([batch.attention_BT, off_BT], 1),
    )


def whole(seed=0):
    """Passages, queries, negatives and what is known of them, all texts different."""
    generator = torch.Generator().manual_seed(seed + 3)
    known = Queries(
        target_B=torch.arange(B),
        source_B=torch.arange(B) + 100,
        negative_R=torch.arange(len(OWNERS)) + 200,
        owner_R=torch.tensor(OWNERS),
        scores_B=5 + torch.randn(B, generator=generator),
        scores_R=3 * torch.randn(len(OWNERS), generator=generator),
    )
    return states(B, N, seed), states(B, M, seed + 1), states(len(OWNERS), N, seed + 2), known


def part(batch, rows):
    """Some pairs with their negatives."""
    teacher, student, negatives, known = batch
    rows = torch.arange(B)[rows] if isinstance(rows, slice) else torch.tensor(rows)
    mine = torch.cat([torch.nonzero(known.owner_R == row)[:, 0] for row in rows.tolist()])
    owner_R = torch.repeat_interleave(torch.arange(len(rows)), (known.owner_R[None] == rows[:, None]).sum(1))
    return (
        rows_of(teacher, rows),
        rows_of(student, rows),
        rows_of(negatives, mine),
        Queries(
            known.target_B[rows],
            known.source_B[rows],
            known.negative_R[mine],
            owner_R,
            known.scores_B[rows],
            known.scores_R[mine],
        ),
    )


def loss_of(name, batch, rows=None):
    """Output and gradients to passages, queries and negatives."""
    teacher, student, negatives, known = batch
    leaves = [
        TokenStates(side.x_BTD.detach().clone().requires_grad_(), side.mask_BT, side.attention_BT)
        for side in (teacher, student, negatives)
    ]
    passages = Passages(leaves[2], known, rows or (len(negatives),))
    output = at(objective(name), Moment(0, None, passages))(leaves[0], leaves[1])
    output.sum.backward()
    return output, [torch.zeros_like(leaf.x_BTD) if leaf.x_BTD.grad is None else leaf.x_BTD.grad for leaf in leaves]


def close(found, wanted):
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=2e-6)


@every_objective
@pytest.mark.parametrize("value", [0.0, 3.0])
def test_padding_changes_nothing(name, value):
    teacher, student, negatives, known = whole()
    plain, expected = loss_of(name, (teacher, student, negatives, known))
    more = padded(teacher, 3, value), padded(student, 2, value), padded(negatives, 4, value), known
    output, gradients = loss_of(name, more)
    close(output.sum, plain.sum)
    for found, wanted in zip(gradients, expected, strict=True):
        close(found[:, : wanted.shape[1]], wanted)
        assert not found[:, wanted.shape[1] :].any()
    for metric, total in plain.metrics.items():
        close(output.metrics[metric], total)
    # What alarms may watch.
    assert set(plain.metrics) == set(OF_OBJECTIVES[LISTS[name]["name"]])


@every_objective
def test_everything_that_is_compared_learns(name):
    output, gradients = loss_of(name, whole())
    assert output.weight == B
    assert output.sum.isfinite()
    for gradient in gradients:
        assert gradient.isfinite().all()
    assert gradients[2].abs().sum((1, 2)).min() > 0, "a negative without gradient"


def own_score(query, passage, how):
    """Of one text and another by the definition, in [-1, 1]."""
    if how == "dense":
        return (query.pooled() @ passage.pooled().T).squeeze()
    cosines_MN = query.normalized()[0, query.mask_BT[0]] @ passage.normalized()[0, passage.mask_BT[0]].T
    return cosines_MN.max(1).values.mean()


@every_separable
def test_the_minimum_is_where_the_student_scores_as_recorded(name):
    teacher, student, negatives, known = whole()
    options = LISTS[name]
    scale = options.get("score_temperature", 1.0) / options["temperature"]
    pairs = [(student.part(slice(row, row + 1)), teacher.part(slice(row, row + 1))) for row in range(B)]
    lists = [(pairs[row][0], negatives.part(slice(at, at + 1))) for at, row in enumerate(OWNERS)]
    own_B, own_R = (
        torch.stack([own_score(query, passage, options.get("scores")) for query, passage in some])
        for some in (pairs, lists)
    )
    same = replace(known, scores_B=3.0 + scale * own_B, scores_R=3.0 + scale * own_R)
    output, gradients = loss_of(name, (teacher, student, negatives, same))
    assert output.sum.item() == pytest.approx(0.0, abs=1e-5)
    assert max(gradient.abs().max() for gradient in gradients) < 1e-3
    other, _ = loss_of(name, (teacher, student, negatives, known))
    assert other.sum > 0.1


@every_separable
def test_a_split_batch_has_the_same_sum_and_gradient(name):
    plain, expected = loss_of(name, whole())
    halves = [loss_of(name, part(whole(), rows)) for rows in (slice(0, 2), slice(2, None))]
    close(sum(output.sum for output, _ in halves), plain.sum)
    for side, wanted in enumerate(expected):
        close(torch.cat([gradients[side] for _, gradients in halves]), wanted)
    for metric, total in plain.metrics.items():
        close(sum(output.metrics[metric] for output, _ in halves), total)


@every_objective
def test_the_order_of_pairs_is_irrelevant(name):
    plain, expected = loss_of(name, whole())
    order = [3, 1, 4, 0, 2]
    output, gradients = loss_of(name, part(whole(), order))
    close(output.sum, plain.sum)
    close(gradients[1], expected[1][order])


@every_objective
def test_a_batch_without_pairs_has_no_loss(name):
    output, _ = loss_of(name, nothing())
    assert (output.sum.item(), output.weight) == (0.0, 0)


def nothing():
    teacher, student, negatives, known = whole()
    none = [getattr(known, name)[:0] for name in Queries.__dataclass_fields__]
    return teacher.first(0), student.first(0), negatives.first(0), Queries(*none)


def project(batch, shared_DD):
    teacher, student, negatives, known = batch
    sides = [TokenStates(s.x_BTD @ shared_DD, s.mask_BT, s.attention_BT) for s in (teacher, student, negatives)]
    return *sides, known


def loss_through(name, batch, rows=None, counts=None):
    """The loss after a projection that all ranks share, and the projection."""
    shared_DD = torch.randn(D, D, generator=torch.Generator().manual_seed(3)).requires_grad_()
    teacher, student, negatives, known = project(batch, shared_DD)
    passages = Passages(negatives, known, counts or (len(negatives),))
    return at(objective(name), Moment(0, rows, passages))(teacher, student), shared_DD


def compare_ranks(file):
    """On every rank: this rank's part, after the engine's averaging, equals the whole batch alone."""
    rank, size = dist.get_rank(), dist.get_world_size()
    for (name, first), expected in torch.load(file).items():
        mine = nothing() if not (rank or first) else part(whole(), slice(first, B) if rank else slice(0, first))
        before = sum(owner < first for owner in OWNERS)
        counts = before, len(OWNERS) - before
        for rows in (None, (first, B - first)):
            output, shared_DD = loss_through(name, mine, rows, counts)
            (output.sum * (size / B)).backward()
            gradient = torch.zeros(D, D) if shared_DD.grad is None else shared_DD.grad
            found = [output.sum.detach() / B, gradient / size, sum(output.metrics.values())]
            for total in found:
                dist.all_reduce(total)
            for value, wanted in zip(found, expected, strict=True):
                torch.testing.assert_close(value, wanted, rtol=1e-4, atol=2e-6, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.distributed
def test_two_processes_are_one_batch_however_it_is_divided(tmp_path):
    expected = {}
    for name in LISTS:
        output, shared_DD = loss_through(name, whole())
        (output.sum / B).backward()
        result = output.sum.detach() / B, shared_DD.grad, sum(output.metrics.values())
        expected |= {(name, first): result for first in (0, 1, 3)}
    torch.save(expected, tmp_path / "whole.pt")
    run_ranks("tests.conformance.test_query_lists", "compare_ranks", tmp_path / "whole.pt")
