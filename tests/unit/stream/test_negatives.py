"""Negatives on their way into batches: which are drawn, by whom, and what is known of them."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from optical_scale.records import TextPair
from optical_scale.runtime.world import World
from optical_scale.stream.buckets import Budget
from optical_scale.stream.collate import PairCollator
from optical_scale.stream.loader import StreamLoader
from optical_scale.stream.mixing import Mixture
from optical_scale.stream.strand import make_strand, portions_of
from tests.unit.stream.support import bucketing, characters

NEGATIVES = tuple("abcdefg")


def pair(number=0, negatives=NEGATIVES, scored=True):
    scores = tuple(float(at) for at in range(1 + len(negatives))) if scored else ()
    return TextPair(f"k{number}", "en", f"passage {number}", f"query {number}", "c", negatives, scores)


def collator(negatives=3, **settings):
    return PairCollator(characters, tokenize_target=characters, negatives=negatives, **settings)


def texts(batch):
    return ["".join(chr(i) for i in ids[ids > 0].tolist()) for ids in batch.source.ids_BT]


def test_negatives_stand_behind_the_passages_with_their_owners_and_scores():
    batch = collator(negatives=2)([pair(0, ("x",)), pair(1, ()), pair(2, ("y", "z"), scored=False)])
    assert texts(batch) == ["passage 0", "passage 1", "passage 2", "x", "y", "z"]
    assert (len(batch), len(batch.target), batch.negatives) == (3, 3, 3)
    known = batch.queries
    assert known.owner_R.tolist() == [0, 2, 2]
    assert known.scores_B[:2].tolist() == [0.0, 0.0]
    assert known.scores_R[0] == 1.0
    assert known.scores_B[2].isnan()
    assert known.scores_R[1:].isnan().all()


def test_equal_texts_have_equal_digests():
    batch = collator(negatives=2)([pair(0, ("x", "passage 1")), pair(1, ("x", "query 0"))])
    known = batch.queries
    ours = torch.cat([known.target_B, known.source_B, known.negative_R]).tolist()
    assert len(set(ours)) == 5
    assert known.negative_R[0] == known.negative_R[2]
    assert known.negative_R[1] == known.source_B[1]
    assert known.negative_R[3] == known.target_B[0]


def test_over_the_epochs_all_negatives_are_used_equally_often():
    draws = [texts(collator()([pair()], [epoch]))[1:] for epoch in range(len(NEGATIVES))]
    assert all(len(set(draw)) == 3 for draw in draws)
    assert Counter(name for draw in draws for name in draw) == dict.fromkeys(NEGATIVES, 3)
    assert draws == [texts(collator()([pair()], [epoch]))[1:] for epoch in range(len(NEGATIVES))]
    assert any(texts(collator()([pair(n)]))[1:] != draws[0] for n in range(1, 5)), "pairs have orders of their own"
    assert any(texts(collator(seed=seed)([pair()]))[1:] != draws[0] for seed in range(1, 5))


def test_scores_follow_the_draw():
    batch = collator()([pair()], [1])
    drawn = [float(1 + NEGATIVES.index(name)) for name in texts(batch)[1:]]
    assert batch.queries.scores_R.tolist() == drawn


def test_without_wanting_negatives_none_are_read():
    batch = collator(negatives=0)([pair()])
    assert (texts(batch), batch.negatives) == (["passage 0"], 0)
    assert collator(negatives=0).texts(pair()) == ["passage 0"]
    assert collator().texts(pair()) == ["passage 0", *NEGATIVES]


class Listed:
    """Forty pairs, of which every third has two negatives only."""

    name, language, shard_sizes = "s", "en", (40,)

    def __len__(self):
        return 40

    def __getitem__(self, index):
        return pair(index, NEGATIVES[:2] if index % 3 == 0 else NEGATIVES)


def loader(rank=0, size=1, workers=0, micro_batch_pairs=2, bucket=None):
    source = Listed()
    strand = make_strand(
        [source],
        collator(),
        Mixture(portions_of([source])),
        seed=5,
        pairs_per_step=8,
        micro_batch_pairs=None if bucket else micro_batch_pairs,
        bucketing=bucket,
    )
    return StreamLoader([strand], world=World(rank, size), workers=workers)


def content(batch):
    """For each pair its negatives."""
    names, owners = texts(batch)[len(batch) :], batch.queries.owner_R.tolist()
    return {
        key: tuple(name for name, owner in zip(names, owners, strict=True) if owner == row)
        for row, key in enumerate(batch.keys)
    }


def steps(size, count, **settings):
    ranks = [loader(rank, size, **settings) for rank in range(size)]
    try:
        return [
            {key: value for rank in ranks for batch in rank.take(step) for key, value in content(batch).items()}
            for step in range(count)
        ]
    finally:
        for rank in ranks:
            rank.close()


def test_ranks_workers_and_micro_batches_see_the_same_negatives():
    alone = steps(1, 12)
    assert alone == steps(2, 12) == steps(4, 12) == steps(1, 12, workers=2) == steps(1, 12, micro_batch_pairs=8)
    assert any(first[key] != later[key] for first in alone[:5] for later in alone[5:] for key in first if key in later)


def test_a_resumed_stream_draws_the_same_negatives():
    stream = loader()
    for step in range(7):
        stream.take(step)
    again = loader()
    again.restore(stream.state())
    assert [content(batch) for batch in again.take(7)] == [content(batch) for batch in stream.take(7)]


def test_a_budget_counts_every_passage():
    assert Budget(tokens=100).use(2, 20, 10) == pytest.approx(0.6)
    assert Budget(tokens=100, passages=4).use(2, 20, 10) == pytest.approx(1.8)
    budget = Budget(tokens=300, passages=4)
    how = bucketing(look_ahead=16, budget=budget, lanes=2, sources=[Listed()])
    stream = loader(bucket=how)
    for step in range(5):
        for batch in stream.take(step):
            rows, longest = batch.source.ids_BT.shape
            assert rows * longest + batch.target.ids_BT.numel() <= budget.tokens
    assert "passages 4" in how.describe(None)
    assert "passages" not in replace(how, budget=Budget(tokens=300)).describe(None)
