"""Which pairs form an optimizer step, and which process reads them.

Step s (from 0) has G = ``pairs_per_step`` draws, on any number of processes. All ranks take the same number of steps
and of micro-batches, because no rank's data decides when it ends.

**Without bucketing** step s is the draws s·G … (s+1)·G - 1. They are shuffled with a seed of their own, so that
languages spread over ranks, and cut into G/µ micro-batches of µ = ``micro_batch_pairs``. For a given µ the
micro-batches are the same sets of pairs whatever the number of ranks is; with another µ the step is still the same set.

**With bucketing** L steps, L·G draws, are cut together (:mod:`~optical_scale.stream.buckets`). Blocks of L steps start
anew after every ceil(pairs/G) steps, so that an epoch ends with a block and gives every pair at least once. Under a
budget the number of pairs varies from step to step around G and the number of micro-batches from block to block, as a
multiple of ``lanes``.

On W ranks, micro-batch c is read by rank c % W as its number c // W. Inside a micro-batch, rows are in order
of draw number, which keeps reads of one source moving forward.

**Canonical nodes.** All of the above lets every rank come by every shard. With P canonical nodes the stream is P
sections that are planned alone, G/P draws a step each, all with the same mixture. Draw k of a source in section p is
draw k·P + p of its order, which keeps a section in one part of the corpus for an epoch while every pair still comes
exactly once (:mod:`~optical_scale.stream.order`). Micro-batch c belongs to section c % P. W ranks divide P or are a
multiple of it; then W/P neighbouring ranks, a node or several, share a section.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from optical_scale.errors import StreamError
from optical_scale.runtime.seeding import derive_seed
from optical_scale.runtime.world import World
from optical_scale.stream.buckets import Bucketing, by_length, cut_within, deal, pieces_within
from optical_scale.stream.mixing import Exposure, Mixing
from optical_scale.stream.order import Recent, SampleOrder, shuffled


class Row(NamedTuple):
    """One pair of a micro-batch: sample ``sample`` of source number ``source``, in the source's epoch ``epoch``."""

    source: int
    sample: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Block:
    """The draws of a section that are cut together.

    Attributes:
        first: its first step.
        draws_P3: source, sample and epoch of each draw.
        lengths_P2: tokens of both sides; None without bucketing.
        steps: for each step the section's micro-batches, each an ascending array of positions in ``draws_P3``.
    """

    first: int
    draws_P3: NDArray[np.int64]
    lengths_P2: NDArray[np.int64] | None
    steps: list[list[NDArray[np.int64]]]


class StepPlan:
    """The rows of every micro-batch of every step, as a pure function.

    Args:
        mixture: which source supplies which draw of a section.
        orders: the order of each source of the mixture; their ``parts`` are the canonical nodes.
        seed: the run's data seed.
        pairs_per_step: draws for one optimizer step over all ranks, G.
        micro_batch_pairs: pairs one rank encodes at once, µ; None under a budget.
        bucketing: sort by length; None does not.

    Attributes:
        canonical_nodes: P, the number of sections.
        lanes: micro-batches of a step are a multiple of this, and so must the number of ranks divide it.
        look_ahead: steps cut together.
        steps_per_epoch: ceil(pairs/G).

    Raises:
        StreamError: G is not a positive multiple of µ, or of the lanes of a budget, or P does not divide the lanes.
    """

    def __init__(
        self,
        mixture: Mixing,
        orders: Sequence[SampleOrder],
        seed: int,
        pairs_per_step: int,
        micro_batch_pairs: int | None,
        bucketing: Bucketing | None = None,
    ) -> None:
        budget = bucketing is not None and bucketing.budget is not None
        if budget == (micro_batch_pairs is not None):
            raise StreamError("micro-batches have either micro_batch_pairs or a budget; give one of both")
        part, what = (
            (bucketing.lanes, "lanes") if bucketing and budget else (micro_batch_pairs or 0, "micro_batch_pairs")
        )
        if pairs_per_step < 1 or part < 1 or pairs_per_step % part:
            raise StreamError(f"pairs_per_step {pairs_per_step} is not a positive multiple of {what} {part}")
        self.mixture = mixture
        self.orders = tuple(orders)
        self.seed = seed
        self.pairs_per_step = pairs_per_step
        self.micro_batch_pairs = micro_batch_pairs
        self.bucketing = bucketing
        self.lanes = part if budget else pairs_per_step // part
        self.canonical_nodes = orders[0].parts
        assert all(order.parts == self.canonical_nodes for order in orders)
        if self.lanes % self.canonical_nodes:
            raise StreamError(
                f"{self.lanes} lanes (micro-batches of a step over all ranks) cannot be dealt to "
                f"{self.canonical_nodes} canonical_nodes; set pairs_per_step or lanes to a multiple, for example "
                f"{-(-self.lanes // self.canonical_nodes) * self.canonical_nodes} lanes"
            )
        self.steps_per_epoch = -(-sum(order.pairs for order in orders) // pairs_per_step)
        wanted = 1 if bucketing is None else bucketing.look_ahead // pairs_per_step
        self.look_ahead = max(1, min(wanted, self.steps_per_epoch))
        self._section_pairs = pairs_per_step // self.canonical_nodes
        self._blocks: Recent[Block] = Recent(2 * self.canonical_nodes)
        self._budgeted: Recent[list[Block]] = Recent(2)

    def check(self, world: World) -> None:
        """Make sure that every rank gets equally many micro-batches of every step.

        Raises:
            StreamError: the number of ranks does not divide the lanes; the message shows the arithmetic.
        """
        if self.lanes % world.size == 0:
            if self.canonical_nodes % world.size and world.size % self.canonical_nodes:
                raise StreamError(
                    f"{world.size} ranks neither divide {self.canonical_nodes} canonical_nodes nor are a multiple of "
                    "them; change the number of ranks, or start a new run with other canonical_nodes"
                )
            return
        if self.micro_batch_pairs is None:
            raise StreamError(
                f"{self.lanes} lanes cannot be dealt to {world.size} ranks; set lanes to a multiple of the number of "
                f"ranks, for example {-(-self.lanes // world.size) * world.size}"
            )
        together = world.size * self.micro_batch_pairs
        below = self.pairs_per_step - self.pairs_per_step % together
        choices = " or ".join(str(choice) for choice in (below, below + together) if choice)
        raise StreamError(
            f"pairs_per_step {self.pairs_per_step} = {world.size} ranks x {self.micro_batch_pairs} "
            f"micro_batch_pairs x {self.pairs_per_step / together:.3f} accumulation, which is not whole; "
            f"set pairs_per_step to {choices}, or change micro_batch_pairs or the number of ranks"
        )

    def numbers(self, step: int, world: World) -> range:
        """Which micro-batches of ``step`` this rank reads, in order; equally many on every rank."""
        count = self.lanes
        if self.micro_batch_pairs is None:
            count = len(self.block(step).steps[step - self.first_of_block(step)]) * self.canonical_nodes
        sharing = world.size // self.canonical_nodes  # ranks of a section, if there are enough
        section, place = divmod(world.rank, sharing) if sharing else (world.rank, 0)
        return range(place * self.canonical_nodes + section, count, world.size)

    def micro_batch(self, step: int, number: int) -> tuple[Block, NDArray[np.int64]]:
        """Micro-batch ``number`` of ``step``: positions in the draws of its block."""
        place, section = divmod(number, self.canonical_nodes)
        block = self.block(step, section)
        return block, block.steps[step - block.first][place]

    def rows(self, step: int, number: int) -> list[Row]:
        """The rows of micro-batch ``number`` of ``step``."""
        block, batch = self.micro_batch(step, number)
        return [Row(*row) for row in block.draws_P3[batch].tolist()]

    def drawn(self, step: int) -> dict[str, int]:
        """Pairs handed out before ``step``, by language, over all ranks."""
        first = self.first_of_block(step)
        counts = self.mixture.language_counts(first * self._section_pairs)
        totals = {language: count * self.canonical_nodes for language, count in counts.items()}
        for section in range(self.canonical_nodes if step > first else 0):
            block = self.block(step, section)
            for batches in block.steps[: step - first]:
                for source in np.concatenate([block.draws_P3[batch, 0] for batch in batches]).tolist():
                    totals[self.mixture.portions[source].language] += 1
        return totals

    def exposure(self, steps: int) -> tuple[Exposure, ...]:
        """What ``steps`` steps mean for each language."""
        nodes = self.canonical_nodes
        return tuple(
            replace(row, draws=row.draws * nodes, epochs=row.epochs * nodes)
            for row in self.mixture.exposure(steps * self._section_pairs)
        )

    def first_of_block(self, step: int) -> int:
        """The first step of the block of ``step``."""
        return step - step % self.steps_per_epoch % self.look_ahead if self.bucketing else step

    def steps_of_block(self, first: int) -> int:
        """How many steps the block that begins with step ``first`` has."""
        return min(self.look_ahead, self.steps_per_epoch - first % self.steps_per_epoch) if self.bucketing else 1

    def block(self, step: int, section: int = 0) -> Block:
        """The block of ``step`` in one section."""
        first = self.first_of_block(step)
        if self.micro_batch_pairs is None:
            return self._budgeted.get(first, lambda: self._within_budget(first))[section]
        return self._blocks.get((first, section), lambda: self._block(first, section))

    def _block(self, first: int, section: int) -> Block:
        assert self.micro_batch_pairs is not None
        if self.bucketing:
            draws_P3, lengths_P2, order = self._by_length(first, section)
            ends = list(range(self.micro_batch_pairs, len(order) + 1, self.micro_batch_pairs))
            return self._dealt(first, section, draws_P3, lengths_P2, np.split(order, ends[:-1]))
        shuffle = shuffled(self._section_pairs, self._seed("step", first, section))
        batches = list(np.sort(shuffle.reshape(-1, self.micro_batch_pairs), axis=1))
        return Block(first, self._draws(first, 1, section), None, [batches])

    def _within_budget(self, first: int) -> list[Block]:
        """All sections, because the one that needs most micro-batches decides their number."""
        assert self.bucketing is not None
        assert self.bucketing.budget is not None
        budget = self.bucketing.budget
        sections = [self._by_length(first, section) for section in range(self.canonical_nodes)]
        unit = self.steps_of_block(first) * self.lanes // self.canonical_nodes
        pieces = max(pieces_within(lengths_P2[order], budget, unit) for _, lengths_P2, order in sections)
        return [
            self._dealt(
                first,
                section,
                draws_P3,
                lengths_P2,
                np.split(order, cut_within(lengths_P2[order], budget, pieces)[:-1]),
            )
            for section, (draws_P3, lengths_P2, order) in enumerate(sections)
        ]

    def _seed(self, purpose: str, first: int, section: int) -> int:
        # Section 0 has the seeds of a stream without sections.
        return derive_seed(self.seed, purpose, first, *([section] if section else []))

    def _draws(self, first: int, steps: int, section: int) -> NDArray[np.int64]:
        start, stop = first * self._section_pairs, (first + steps) * self._section_pairs
        owners = self.mixture.owners(start, stop)
        draws_P3 = np.empty((stop - start, 3), dtype=np.int64)
        draws_P3[:, 0] = owners
        before = self.mixture.counts(start)
        for source in np.unique(owners).tolist():
            mine = owners == source
            k = before[source]
            draws_P3[mine, 1], draws_P3[mine, 2] = self.orders[source].samples(k, k + int(mine.sum()), section)
        return draws_P3

    def _by_length(self, first: int, section: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """The draws of a block, their lengths, and the order of their lengths."""
        assert self.bucketing is not None
        draws_P3 = self._draws(first, self.steps_of_block(first), section)
        lengths_P2 = np.empty((len(draws_P3), 2), dtype=np.int64)
        for source in np.unique(draws_P3[:, 0]).tolist():
            mine = draws_P3[:, 0] == source
            lengths_P2[mine] = self.bucketing.lengths.of(source, draws_P3[mine, 1])
        return draws_P3, lengths_P2, by_length(lengths_P2, self.pairs_per_step // self.lanes)

    def _dealt(
        self,
        first: int,
        section: int,
        draws_P3: NDArray[np.int64],
        lengths_P2: NDArray[np.int64],
        pieces: list[NDArray[np.int64]],
    ) -> Block:
        sizes = [int(lengths_P2[piece].max(axis=0).sum()) for piece in pieces]
        dealt = deal(pieces, sizes, self.steps_of_block(first), self._seed("block", first, section))
        return Block(first, draws_P3, lengths_P2, [[np.sort(pieces[piece]) for piece in step] for step in dealt])
