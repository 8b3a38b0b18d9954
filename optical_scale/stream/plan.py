"""Which pairs form an optimizer step, and which process reads them.

Step s (from 0) is the draws s·G … (s+1)·G - 1, with G = ``pairs_per_step``, on any number of processes. The draws of a
step are shuffled with a seed of their own, so that languages spread over ranks, and cut into G/µ micro-batches of
µ = ``micro_batch_pairs``. On W ranks, micro-batch c is read by rank c % W as its micro-batch number c // W: for a given
µ the micro-batches are the same sets of pairs whatever W is, only dealt to other ranks. With another µ the step is
still the same set of pairs. All ranks take the same number of steps, because no rank's data decides when it ends.

Inside a micro-batch, rows are in order of draw number, which keeps reads of one source moving forward.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from optical_scale.errors import StreamError
from optical_scale.runtime.seeding import derive_seed
from optical_scale.runtime.world import World
from optical_scale.stream.mixing import Mixture
from optical_scale.stream.order import Recent, SampleOrder, shuffled


class Row(NamedTuple):
    """One pair of a micro-batch: sample ``sample`` of source number ``source``, in the source's epoch ``epoch``."""

    source: int
    sample: int
    epoch: int


class StepPlan:
    """The rows of every micro-batch of every step, as a pure function.

    Args:
        mixture: which source supplies which draw.
        orders: the order of each source of the mixture.
        seed: the run's data seed.
        pairs_per_step: pairs in one optimizer step over all ranks, G.
        micro_batch_pairs: pairs one rank encodes at once, µ.

    Raises:
        StreamError: G is not a positive multiple of µ.
    """

    def __init__(
        self, mixture: Mixture, orders: Sequence[SampleOrder], seed: int, pairs_per_step: int, micro_batch_pairs: int
    ) -> None:
        if pairs_per_step < 1 or micro_batch_pairs < 1 or pairs_per_step % micro_batch_pairs:
            raise StreamError(
                f"pairs_per_step {pairs_per_step} is not a positive multiple of micro_batch_pairs {micro_batch_pairs}"
            )
        self.mixture = mixture
        self.orders = tuple(orders)
        self.seed = seed
        self.pairs_per_step = pairs_per_step
        self.micro_batch_pairs = micro_batch_pairs
        self._shuffles: Recent[NDArray[np.int64]] = Recent(2)

    def accumulation(self, world: World) -> int:
        """Micro-batches of each rank in one step, A = G / (W·µ).

        Raises:
            StreamError: W·µ does not divide G.
        """
        together = world.size * self.micro_batch_pairs
        if self.pairs_per_step % together:
            below = self.pairs_per_step - self.pairs_per_step % together
            choices = " or ".join(str(choice) for choice in (below, below + together) if choice)
            raise StreamError(
                f"pairs_per_step {self.pairs_per_step} = {world.size} ranks x {self.micro_batch_pairs} "
                f"micro_batch_pairs x {self.pairs_per_step / together:.3f} accumulation, which is not whole; "
                f"set pairs_per_step to {choices}, or change micro_batch_pairs or the number of ranks"
            )
        return self.pairs_per_step // together

    def numbers(self, world: World) -> range:
        """Which micro-batches of a step this rank reads, in order."""
        return range(world.rank, self.accumulation(world) * world.size, world.size)

    def rows(self, step: int, number: int) -> list[Row]:
        """The rows of micro-batch ``number`` < G/µ of step ``step``."""
        shuffle = self._shuffles.get(step, lambda: self._shuffle(step))
        mine = np.sort(shuffle[number * self.micro_batch_pairs : (number + 1) * self.micro_batch_pairs])
        rows = []
        for offset in mine.tolist():
            source, k = self.mixture.draw(step * self.pairs_per_step + offset)
            order = self.orders[source]
            rows.append(Row(source, order.sample_at(k), order.epoch_of(k)))
        return rows

    def _shuffle(self, step: int) -> NDArray[np.int64]:
        return shuffled(self.pairs_per_step, derive_seed(self.seed, "step", step))
