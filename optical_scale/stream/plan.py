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
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from optical_scale.errors import StreamError
from optical_scale.runtime.seeding import derive_seed
from optical_scale.runtime.world import World
from optical_scale.stream.buckets import Bucketing, by_length, cut_within, deal
from optical_scale.stream.mixing import Mixing
from optical_scale.stream.order import Recent, SampleOrder, shuffled


class Row(NamedTuple):
    """One pair of a micro-batch: sample ``sample`` of source number ``source``, in the source's epoch ``epoch``."""

    source: int
    sample: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Block:
    """The draws that are cut together.

    Attributes:
        first: its first step.
        draws_P3: source, sample and epoch of each draw.
        lengths_P2: tokens of both sides; None without bucketing.
        steps: for each step its micro-batches, each an ascending array of positions in ``draws_P3``.
    """

    first: int
    draws_P3: NDArray[np.int64]
    lengths_P2: NDArray[np.int64] | None
    steps: list[list[NDArray[np.int64]]]


class StepPlan:
    """The rows of every micro-batch of every step, as a pure function.

    Args:
        mixture: which source supplies which draw.
        orders: the order of each source of the mixture.
        seed: the run's data seed.
        pairs_per_step: draws for one optimizer step over all ranks, G.
        micro_batch_pairs: pairs one rank encodes at once, µ; None under a budget.
        bucketing: sort by length; None does not.

    Attributes:
        lanes: micro-batches of a step are a multiple of this, and so must the number of ranks divide it.
        look_ahead: steps cut together.
        steps_per_epoch: ceil(pairs/G).

    Raises:
        StreamError: G is not a positive multiple of µ, or of the lanes of a budget.
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
        self.steps_per_epoch = -(-sum(order.pairs for order in orders) // pairs_per_step)
        wanted = 1 if bucketing is None else bucketing.look_ahead // pairs_per_step
        self.look_ahead = max(1, min(wanted, self.steps_per_epoch))
        self._blocks: Recent[Block] = Recent(2)

    def check(self, world: World) -> None:
        """Make sure that every rank gets equally many micro-batches of every step.

        Raises:
            StreamError: the number of ranks does not divide the lanes; the message shows the arithmetic.
        """
        if self.lanes % world.size == 0:
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
        budget = self.micro_batch_pairs is None
        count = len(self.block(step).steps[step - self.first_of_block(step)]) if budget else self.lanes
        return range(world.rank, count, world.size)

    def rows(self, step: int, number: int) -> list[Row]:
        """The rows of micro-batch ``number`` of ``step``."""
        block = self.block(step)
        return [Row(*row) for row in block.draws_P3[block.steps[step - block.first][number]].tolist()]

    def drawn(self, step: int) -> dict[str, int]:
        """Pairs handed out before ``step``, by language, over all ranks."""
        first = self.first_of_block(step)
        totals = self.mixture.language_counts(first * self.pairs_per_step)
        if step > first:
            block = self.block(step)
            for batches in block.steps[: step - first]:
                for source in np.concatenate([block.draws_P3[batch, 0] for batch in batches]).tolist():
                    totals[self.mixture.portions[source].language] += 1
        return totals

    def first_of_block(self, step: int) -> int:
        """The first step of the block of ``step``."""
        return step - step % self.steps_per_epoch % self.look_ahead if self.bucketing else step

    def block(self, step: int) -> Block:
        """The block of ``step``."""
        first = self.first_of_block(step)
        return self._blocks.get(first, lambda: self._block(first))

    def _block(self, first: int) -> Block:
        steps = 1
        if self.bucketing:
            steps = min(self.look_ahead, self.steps_per_epoch - first % self.steps_per_epoch)
        draws_P3 = self._draws(first * self.pairs_per_step, (first + steps) * self.pairs_per_step)
        if self.bucketing:
            return self._bucketed(first, steps, draws_P3, self.bucketing)
        assert self.micro_batch_pairs is not None
        shuffle = shuffled(self.pairs_per_step, derive_seed(self.seed, "step", first))
        return Block(first, draws_P3, None, [list(np.sort(shuffle.reshape(-1, self.micro_batch_pairs), axis=1))])

    def _draws(self, start: int, stop: int) -> NDArray[np.int64]:
        owners = self.mixture.owners(start, stop)
        draws_P3 = np.empty((stop - start, 3), dtype=np.int64)
        draws_P3[:, 0] = owners
        before = self.mixture.counts(start)
        for source in np.unique(owners).tolist():
            mine = owners == source
            k = before[source]
            draws_P3[mine, 1], draws_P3[mine, 2] = self.orders[source].samples(k, k + int(mine.sum()))
        return draws_P3

    def _bucketed(self, first: int, steps: int, draws_P3: NDArray[np.int64], how: Bucketing) -> Block:
        lengths_P2 = np.empty((len(draws_P3), 2), dtype=np.int64)
        for source in np.unique(draws_P3[:, 0]).tolist():
            mine = draws_P3[:, 0] == source
            lengths_P2[mine] = how.lengths.of(source, draws_P3[mine, 1])
        order = by_length(lengths_P2, self.pairs_per_step // self.lanes)
        if how.budget is not None:
            ends = cut_within(lengths_P2[order], how.budget, steps * self.lanes)
        else:
            assert self.micro_batch_pairs is not None
            ends = list(range(self.micro_batch_pairs, len(order) + 1, self.micro_batch_pairs))
        pieces = np.split(order, ends[:-1])
        sizes = [int(lengths_P2[piece].max(axis=0).sum()) for piece in pieces]
        dealt = deal(pieces, sizes, steps, derive_seed(self.seed, "block", first))
        return Block(first, draws_P3, lengths_P2, [[np.sort(pieces[piece]) for piece in step] for step in dealt])
