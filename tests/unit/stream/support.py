"""Sources, a character tokenizer and a way to run a whole world, shared by the tests of this folder."""

from dataclasses import dataclass, field

import numpy as np
import torch

from optical_scale.batch import TokenBatch
from optical_scale.errors import ShardError
from optical_scale.records import TextPair
from optical_scale.runtime.world import World
from optical_scale.stream.buckets import Bucketing
from optical_scale.stream.collate import PairCollator
from optical_scale.stream.loader import AHEAD, StreamLoader
from optical_scale.stream.mixing import Mixture
from optical_scale.stream.strand import make_strand, portions_of


@dataclass
class ListSource:
    """Text pairs made on demand; remembers which were read in this process, and cannot read ``broken``."""

    name: str
    language: str
    pairs: int
    shard_sizes: tuple[int, ...] = ()
    broken: int = -1
    read: list[int] = field(default_factory=list)

    def __post_init__(self):
        self.shard_sizes = self.shard_sizes or (self.pairs,)

    def __len__(self):
        return self.pairs

    def __getitem__(self, index):
        self.read.append(index)
        if index == self.broken:
            raise ShardError(f"{self.name}-000000.tar, sample {index}: the bytes differ; run `optical-scale verify x`")
        return TextPair(f"{self.name}-{index}", self.language, f"{self.name} {index}", f"{index}" * 2, self.name)


def characters(texts):
    """One token a character, padded on the right with 0."""
    ids_BT = torch.zeros(len(texts), max(map(len, texts)), dtype=torch.int64)
    for row, text in enumerate(texts):
        ids_BT[row, : len(text)] = torch.tensor([ord(character) for character in text])
    return TokenBatch(ids_BT, ids_BT > 0, ids_BT > 0)


COLLATE = PairCollator(characters, tokenize_target=characters)


def three_sources():
    return [ListSource("a", "sw", 40, (15, 0, 25)), ListSource("b", "de", 91), ListSource("c", "sw", 13)]


def strand(sources=None, temperature=2.0, weights=None, mixture=None, **settings):
    sources = three_sources() if sources is None else sources
    mixture = mixture or Mixture(portions_of(sources), temperature, weights)
    settings = {"pairs_per_step": 16, "seed": 5} | settings
    bucketing = settings.get("bucketing")
    if bucketing is None or bucketing.budget is None:
        settings.setdefault("micro_batch_pairs", 2)
    return make_strand(sources, COLLATE, mixture, **settings)


def loader(rank=0, size=1, workers=0, strands=None, shares=None, ahead=AHEAD, **settings):
    return StreamLoader(
        strands or [strand(**settings)], world=World(rank, size), shares=shares, workers=workers, ahead=ahead
    )


def content(batch):
    """Everything in a batch as comparable values."""
    return batch.keys, batch.languages, batch.source.ids_BT.tolist(), batch.target.ids_BT.tolist()


def run(size, steps, workers=0, state=None, **settings):
    """Run ``steps`` steps on ``size`` ranks: for every step its micro-batches in plan order, and the final state."""
    ranks = [loader(rank, size, workers, **settings) for rank in range(size)]
    if state is not None:
        for rank in ranks:
            rank.restore(state)
    result = []
    for _ in range(steps):
        taken = [rank.take(rank.step) for rank in ranks]
        result.append([content(batch) for together in zip(*taken, strict=True) for batch in together])
    states = [rank.state() for rank in ranks]
    for rank in ranks:
        rank.close()
    assert all(other == states[0] for other in states)
    return result, states[0]


class CharacterLengths:
    """Characters of both sides, as :func:`characters` would count them; ``stretch`` makes some pairs much longer."""

    digest = "characters"

    def __init__(self, sources, stretch=0):
        self.sources = sources
        self.stretch = stretch

    def of(self, source, samples):
        pairs = [self.sources[source][index] for index in samples.tolist()]
        return np.array(
            [(len(p.source), len(p.target) + self.stretch * (i % 7)) for p, i in zip(pairs, samples, strict=True)]
        )


def bucketing(look_ahead=64, budget=None, lanes=1, stretch=0, sources=None):
    return Bucketing(CharacterLengths(sources or three_sources(), stretch), look_ahead, budget, lanes)
