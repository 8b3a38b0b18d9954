"""What a training stream will do on some numbers of ranks, on paper."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optical_scale.config.run import TrainConfig
from optical_scale.errors import StreamError
from optical_scale.recipes.build_inputs import reads, students_side, teachers_side
from optical_scale.recipes.build_stream import Measure, collator, mixture, sources
from optical_scale.recipes.steps import total_steps
from optical_scale.runtime.world import World
from optical_scale.stream.buckets import Bucketing, Budget, Lengths
from optical_scale.stream.forecast import Shape, shape, shards_per_node
from optical_scale.stream.mixing import Exposure
from optical_scale.stream.source import Source
from optical_scale.stream.strand import Strand, Strands, make_strand


@dataclass(frozen=True, slots=True)
class OnRanks:
    """The stream on one number of ranks.

    Attributes:
        ranks: their number.
        problem: why it cannot run on so many; empty if it can.
        shape: of the examined steps; None if none was examined.
        shards: shards that a node opens in an epoch, expected.
        pairs: pairs that a node reads in an epoch.
    """

    ranks: int
    problem: str
    shape: Shape | None
    shards: float
    pairs: float


@dataclass(frozen=True, slots=True)
class DataPlan:
    """Steps, exposure and the numbers of ranks.

    Attributes:
        steps: optimizer steps of this strand in the run.
        steps_per_epoch: steps in which every pair would be seen once.
        look_ahead: steps that are cut together.
        examined: steps that were planned in full.
        shards: shards in all sources.
        exposure: by language.
        worlds: by number of ranks.
    """

    steps: int
    steps_per_epoch: int
    look_ahead: int
    examined: int
    shards: int
    exposure: tuple[Exposure, ...]
    worlds: tuple[OnRanks, ...]


class _ReadNow:
    """Lengths of samples that are read and tokenised when asked for."""

    def __init__(self, found: Sequence[Source], measure: Measure) -> None:
        self.digest = "read now"
        self._found = found
        self._measure = measure
        self._known: dict[tuple[int, int], NDArray[np.int64]] = {}

    def of(self, source: int, samples: NDArray[np.int64]) -> NDArray[np.int64]:
        missing = [index for index in samples.tolist() if (source, index) not in self._known]
        for start in range(0, len(missing), 1024):
            part = missing[start : start + 1024]
            rows = self._measure([self._found[source][index] for index in part])
            self._known |= {(source, index): row for index, row in zip(part, rows, strict=True)}
        return np.array([self._known[source, index] for index in samples.tolist()]).reshape(-1, 2)


def plan_data(config: TrainConfig, ranks: Sequence[int], *, per_node: int = 8, blocks: int = 1) -> dict[str, DataPlan]:
    """Plan the stream of ``config``, strand by strand.

    Args:
        config: the run.
        ranks: numbers of ranks to consider.
        per_node: ranks on a node.
        blocks: look-aheads, spread over the first epoch, whose pairs are read and cut; 0 reads nothing.

    Raises:
        ConfigError: the sources do not fit the student.
        ShardError: a folder or a sample cannot be read.
    """
    made = {name: _strand(part, name) for name, part in config.towers().items()}
    strands = Strands([strand for strand, _ in made.values()], config.stream.shares)
    steps = strands.counts(total_steps(config, strands))
    return {
        name: _plan(strand, lengths, own, ranks, per_node, blocks)
        for (name, (strand, lengths)), own in zip(made.items(), steps, strict=True)
    }


def _plan(strand: Strand, lengths: Lengths, steps: int, ranks: Sequence[int], per_node: int, blocks: int) -> DataPlan:
    plan = strand.plan
    firsts = [plan.first_of_block(plan.steps_per_epoch * number // blocks) for number in range(blocks)]
    examined = sorted({step for first in firsts for step in range(first, first + plan.steps_of_block(first))})
    worlds = []
    for size in ranks:
        nodes = -(-size // per_node)
        problem = ""
        try:
            plan.check(World(0, size))
        except StreamError as error:
            problem = str(error)
        found = shape(plan, lengths, examined, size) if examined and not problem else None
        pairs = plan.steps_per_epoch * plan.pairs_per_step / nodes
        worlds.append(OnRanks(size, problem, found, shards_per_node(strand.sizes, nodes, plan.canonical_nodes), pairs))
    return DataPlan(
        steps,
        plan.steps_per_epoch,
        plan.look_ahead,
        len(examined),
        sum(map(len, strand.sizes)),
        plan.exposure(steps),
        tuple(worlds),
    )


def _strand(config: TrainConfig, name: str) -> tuple[Strand, _ReadNow]:
    how = config.stream
    student = config.student.backbone
    prepare, tokenize = students_side(reads(student), config.student), teachers_side(config)
    kind, collate = collator(tokenize, prepare, negatives=how.negatives, seed=config.seed)
    found = sources(how, kind)
    lengths = _ReadNow(found, Measure(collate, tokenize, prepare))
    cut = how.bucketing
    budget = Budget(cut.tokens, cut.transport, 1 + how.negatives) if cut and cut.has_budget else None
    strand = make_strand(
        found,
        collate,
        mixture(how, found),
        seed=config.seed,
        pairs_per_step=how.pairs_per_step,
        micro_batch_pairs=how.micro_batch_pairs,
        bucketing=Bucketing(lengths, cut.look_ahead, budget, cut.lanes or 1) if cut else None,
        canonical_nodes=how.canonical_nodes,
        name=name,
    )
    return strand, lengths
