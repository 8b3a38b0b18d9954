"""What happens to samples that cannot be used."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from optical_scale.batch import PairBatch
from optical_scale.errors import CorpusError, OpticalScaleError, ShardError
from optical_scale.records import Record

Policy = Literal["error", "skip"]

REASONS = ("missing shard", "truncated shard", "damaged sample", "unreadable shard", "bad image", "unusable record")
"""Why a sample was skipped; the order is that of the counts which ranks add up."""

UNUSABLE = len(REASONS) - 1


def reason_of(error: OpticalScaleError) -> str:
    """The word of :data:`REASONS` for an error of reading or collating."""
    if isinstance(error, ShardError):
        return error.reason
    return "bad image" if isinstance(error, CorpusError) else REASONS[UNUSABLE]


@dataclass(frozen=True, slots=True)
class Reading:
    """Rows of one micro-batch become a batch, under a policy.

    Attributes:
        policy: ``error`` gives the first fault to the caller; ``skip`` leaves the row out and counts it.
        collate: ``(records, epochs) -> PairBatch``.
        blank: a batch of one row that means nothing and has no key, for a micro-batch whose samples are all unusable:
            the rank still has to take part in the collectives of the step.
    """

    policy: Policy
    collate: Callable[[Sequence[Record], Sequence[int]], PairBatch]
    blank: Callable[[], PairBatch]

    def __call__(self, reads: Sequence[Callable[[], Record]], epochs: Sequence[int]) -> PairBatch:
        """Read and collate.

        Raises:
            OpticalScaleError: under ``error``, the first fault.
        """
        if self.policy == "error":
            return self.collate([read() for read in reads], epochs)
        records: list[Record] = []
        kept: list[int] = []
        skipped: list[str] = []
        for read, epoch in zip(reads, epochs, strict=True):
            try:
                records.append(read())
                kept.append(epoch)
            except OpticalScaleError as error:
                skipped.append(reason_of(error))
        try:
            batch = self.collate(records, kept) if records else self.blank()
        except OpticalScaleError:
            batch, more = self._usable(records, kept)
            skipped += more
        return batch.without(skipped)

    def _usable(self, records: Sequence[Record], epochs: Sequence[int]) -> tuple[PairBatch, list[str]]:
        """Collate what can be collated, found one by one."""
        good: list[int] = []
        skipped: list[str] = []
        for position, (record, epoch) in enumerate(zip(records, epochs, strict=True)):
            try:
                self.collate([record], [epoch])
                good.append(position)
            except OpticalScaleError as error:
                skipped.append(reason_of(error))
        if not good:
            return self.blank(), skipped
        return self.collate([records[place] for place in good], [epochs[place] for place in good]), skipped
