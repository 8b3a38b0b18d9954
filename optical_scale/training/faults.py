"""Ranks agree on what went wrong with their data before they enter the collectives of a step."""

from collections.abc import Callable, Sequence

import torch

from optical_scale.batch import PairBatch
from optical_scale.errors import StreamError
from optical_scale.runtime.collectives import sum_over_ranks
from optical_scale.stream.faults import REASONS


def take_together(
    take: Callable[[], list[PairBatch]], device: torch.device | str = "cpu"
) -> tuple[list[PairBatch], dict[str, int]]:
    """The next micro-batches of this rank, and what all ranks together had to skip for this step, by reason.

    One exchange of a few numbers. Without it a rank that cannot read its samples would leave the others waiting inside
    the step until a timeout.

    Raises:
        Exception: whatever ``take`` raises.
        StreamError: ``take`` failed on another rank.
    """
    batches: list[PairBatch] = []
    failure: Exception | None = None
    try:
        batches = take()
    except Exception as error:
        failure = error
    mine = [float(failure is not None), *_counts(batches)]
    failed, *skipped = (int(value) for value in sum_over_ranks(torch.tensor(mine, device=device)).tolist())
    if failure is not None:
        raise failure
    if failed:
        raise StreamError(f"the data of {failed} other rank(s) failed; their own messages say why")
    return batches, {reason: count for reason, count in zip(REASONS, skipped, strict=True) if count}


def _counts(batches: Sequence[PairBatch]) -> list[float]:
    skipped = [reason for batch in batches for reason in batch.skipped]
    return [float(skipped.count(reason)) for reason in REASONS]
