import math
import re
from dataclasses import replace

import pytest
import torch

from optical_scale.batch import PairBatch, PhraseRegions, Queries, TokenBatch, TokenStates
from optical_scale.engine.student import Update
from optical_scale.losses.mse import PooledMSE
from optical_scale.losses.region_alignment import RegionAlignment
from optical_scale.losses.score_lists import MarginMSE
from optical_scale.training.step import TrainStep
from tests.support.processes import run_ranks

VOCABULARY, WIDTH = 11, 4


class TableEngine:
    """A student engine without DeepSpeed: one embedding table, plain SGD, averaged over ranks by the caller's rule."""

    def __init__(self, accumulation, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.table = torch.randn(VOCABULARY, WIDTH, generator=generator).requires_grad_()
        self.accumulation, self.done, self.device = accumulation, 0, torch.device("cpu")

    def encode(self, batch):
        return TokenStates(self.table[batch.ids_BT], batch.mask_BT, batch.attention_BT)

    def encode_both(self, source, target):
        return self.encode(source), self.encode(target)

    def backward(self, loss_sum, global_weight, *, last):
        (loss_sum / global_weight).backward()

    def finish_micro_batch(self):
        self.done += 1
        if self.done % self.accumulation:
            return None
        norm = float(self.table.grad.norm())
        if math.isfinite(norm):
            with torch.no_grad():
                self.table -= 0.1 * self.table.grad
        self.table.grad = None
        return Update(norm, 0.1, math.isfinite(norm))


class FrozenTable(TableEngine):
    """The teacher's side of the same."""

    def encode(self, batch):
        return super().encode(batch).detach()


def pairs(*rows):
    ids_BT = torch.tensor(rows)
    mask_BT = torch.ones_like(ids_BT, dtype=torch.bool)
    tokens = TokenBatch(ids_BT, mask_BT, mask_BT)
    return PairBatch(tokens, tokens, ("sw",) * len(rows), tuple(f"k{i}" for i in range(len(rows))))


WHOLE = [[1, 2, 3], [4, 5, 6], [7, 8, 9], [1, 9, 10]]


def step(accumulation, seed=0, teacher=True):
    student = TableEngine(accumulation, seed)
    return TrainStep(FrozenTable(1, seed=9) if teacher else None, student, PooledMSE()), student


def test_micro_batches_of_uneven_size_are_one_batch():
    whole, alone = step(1)
    parts, together = step(2)
    first = whole([pairs(*WHOLE)])
    second = parts([pairs(*WHOLE[:1]), pairs(*WHOLE[1:])])
    assert second.values["loss"] == pytest.approx(first.values["loss"], rel=1e-5)
    assert second.update.gradient_norm == pytest.approx(first.update.gradient_norm, rel=1e-5)
    torch.testing.assert_close(together.table, alone.table)


def test_a_stand_in_without_keys_changes_nothing():
    whole, alone = step(1)
    parts, together = step(2)
    first = whole([pairs(*WHOLE)])
    second = parts([pairs(*WHOLE), replace(pairs([1, 2]), keys=(), languages=())])
    assert second.values == pytest.approx(first.values)
    torch.testing.assert_close(together.table, alone.table)


def with_phrases(batch, *rows):
    """The second token of each row names what the first patch shows."""
    tokens_FN = torch.tensor([[False, True]] * len(rows))
    patches_FM = torch.tensor([[1.0, 0.0, 0.0]] * len(rows))
    return replace(batch, regions=PhraseRegions(torch.tensor(rows), tokens_FN, patches_FM))


def test_pairs_without_phrases_count_however_the_batch_is_cut():
    def run(*batches):
        student = TableEngine(len(batches))
        result = TrainStep(FrozenTable(1, seed=9), student, RegionAlignment())(batches)
        return result.values, student.table.detach()

    blank = replace(pairs([1, 2, 3]), keys=(), languages=())
    values, table = run(with_phrases(pairs(*WHOLE), 1, 1, 3))
    # Only the second and the fourth pair have phrases; the first micro-batch has none.
    for parts in (
        (pairs(*WHOLE[:1]), with_phrases(pairs(*WHOLE[1:]), 0, 0, 2)),
        (with_phrases(pairs(*WHOLE[:2]), 1, 1), blank, with_phrases(pairs(*WHOLE[2:]), 1)),
    ):
        found, moved = run(*parts)
        assert found == pytest.approx(values, rel=1e-5)
        torch.testing.assert_close(moved, table)
    assert values["pairs_with_phrases"] == 0.5


def test_steps_learn():
    train, _ = step(1)
    losses = [train([pairs(*WHOLE)]).values["loss"] for _ in range(20)]
    assert losses == sorted(losses, reverse=True)


def test_without_teacher_the_student_reads_both_sides():
    train, student = step(1, teacher=False)
    before = student.table.detach().clone()
    # Both sides are the same text, so the loss is 0 and nothing moves.
    assert train([pairs(*WHOLE)]).values["loss"] == pytest.approx(0.0, abs=1e-6)
    torch.testing.assert_close(student.table.detach(), before)


def queries(*rows):
    """Pairs with two negatives each, whose recorded scores are 2, 1 and 0."""
    source = torch.tensor([row[0] for row in rows] + [ids for row in rows for ids in row[2:]])
    target = torch.tensor([row[1] for row in rows])
    tokens = [TokenBatch(ids, torch.ones_like(ids, dtype=torch.bool), ids > 0) for ids in (source, target)]
    number, owners = torch.arange(len(rows)), torch.arange(len(rows)).repeat_interleave(2)
    scores = torch.full((len(rows),), 2.0), torch.tensor([1.0, 0.0]).repeat(len(rows))
    known = Queries(number, number, owners, owners, *scores)
    return PairBatch(*tokens, ("en",) * len(rows), tuple(f"k{i}" for i in range(len(rows))), queries=known)


LISTS = [([1, 2], [3, 4], [5, 6], [7, 8]), ([2, 9], [1, 4], [10, 6], [3, 8]), ([6, 7], [8, 9], [1, 2], [2, 3])]


@pytest.mark.parametrize("teacher", [True, False])
def test_negatives_of_uneven_micro_batches_are_one_batch(teacher):
    frozen = FrozenTable(1, seed=9) if teacher else None
    found = []
    for batches in ([LISTS], [LISTS[:1], LISTS[1:]]):
        student = TableEngine(len(batches))
        train = TrainStep(frozen, student, MarginMSE(1.0, "dense"))
        found.append((train([queries(*rows) for rows in batches]), student.table))
    (whole, alone), (parts, together) = found
    assert parts.values["loss"] == pytest.approx(whole.values["loss"], rel=1e-5)
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("place", [0, 1])
def test_a_loss_that_is_not_finite_leaves_the_weights(bad, place):
    train, student = step(2)
    batches = [pairs([1, 2]), pairs([3, 4])]
    with torch.no_grad():
        student.table[1 + 2 * place] = bad
    before = student.table.detach().clone()
    assert re.match(r"the loss is nan [^)]*'k0'", train(batches).problem)
    torch.testing.assert_close(student.table.detach(), before, equal_nan=True)


def one_rank_is_broken():
    import torch.distributed as dist

    train, student = step(1)
    if dist.get_rank() == 1:
        with torch.no_grad():
            student.table[1] = math.nan
    before = student.table.detach().clone()
    assert "the loss is nan" in train([pairs([1, 2])]).problem
    torch.testing.assert_close(student.table.detach(), before, equal_nan=True)


@pytest.mark.distributed
def test_no_rank_learns_when_one_is_broken():
    run_ranks("tests.unit.training.test_step", "one_rank_is_broken")
