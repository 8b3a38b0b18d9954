"""What a plan means for a number of ranks, computed without running anything."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from optical_scale.runtime.world import World
from optical_scale.stream.buckets import Lengths
from optical_scale.stream.plan import StepPlan


@dataclass(frozen=True, slots=True)
class Shape:
    """Micro-batches of some planned steps.

    Attributes:
        pairs: pairs in all of them.
        micro_batches: their number over all ranks.
        padding: share of padding among the tokens of both sides, 0 to 1.
        balance: mean work of a rank over that of the slowest, when all ranks wait after every micro-batch; work is
            counted in padded tokens.
    """

    pairs: int
    micro_batches: int
    padding: float
    balance: float


def shape(plan: StepPlan, lengths: Lengths, steps: Sequence[int], ranks: int) -> Shape:
    """Examine ``steps`` of ``plan`` on ``ranks`` ranks, which must divide the lanes.

    Args:
        plan: the plan.
        lengths: of its samples; a plan with bucketing has its own, which should be the same.
        steps: step numbers.
        ranks: ranks that share the micro-batches.
    """
    pairs, real = 0, 0
    costs: list[NDArray[np.int64]] = []
    for step in steps:
        work = []
        for number in plan.numbers(step, World()):
            block, batch = plan.micro_batch(step, number)
            found_B2 = block.lengths_P2[batch] if block.lengths_P2 is not None else _of(lengths, block.draws_P3[batch])
            pairs += len(batch)
            real += int(found_B2.sum())
            work.append(len(batch) * int(found_B2.max(axis=0).sum()))
        costs.append(np.array(work).reshape(-1, ranks))
    work_SR = np.concatenate(costs)
    return Shape(
        pairs, work_SR.size, 1 - real / work_SR.sum(), float(work_SR.mean(axis=1).sum() / work_SR.max(1).sum())
    )


def _of(lengths: Lengths, draws_B3: NDArray[np.int64]) -> NDArray[np.int64]:
    found_B2 = np.empty((len(draws_B3), 2), dtype=np.int64)
    for source in np.unique(draws_B3[:, 0]).tolist():
        mine = draws_B3[:, 0] == source
        found_B2[mine] = lengths.of(source, draws_B3[mine, 1])
    return found_B2


def shards_per_node(sizes: Sequence[Sequence[int]], nodes: int, canonical_nodes: int = 1) -> float:
    """Shards that a node opens in one epoch, expected.

    The nodes that share a section have its pairs dealt to them without regard to their shard. A section covers its
    share of every source's shards, and parts of two more where it begins and ends.

    Args:
        sizes: samples of each shard, by source.
        nodes: nodes that share the pairs evenly.
        canonical_nodes: sections of the stream.
    """
    sections = min(nodes, canonical_nodes)
    missed = float(1 - Fraction(sections, nodes))
    expected = 0.0
    for source in sizes:
        covered = min(1.0, 1 / sections + 1 / len(source)) if sections > 1 else 1.0
        expected += covered * sum(1 - missed**samples for samples in source)
    return expected
