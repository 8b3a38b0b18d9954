"""The part of a run that feeds one kind of batch, and which part has a step when there are several.

A run on bitext and images has two strands. Step s belongs to one of them on every rank, dealt as evenly as draws are
(:mod:`~optical_scale.stream.mixing`), and is that strand's step number k.
"""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optical_scale.errors import ResumeError, StreamError
from optical_scale.stream.buckets import Bucketing
from optical_scale.stream.collate import PairCollator
from optical_scale.stream.cursor import StreamCursor, cursor_at
from optical_scale.stream.faults import Policy, Reading
from optical_scale.stream.mixing import Mixing, Mixture, Portion
from optical_scale.stream.order import SampleOrder
from optical_scale.stream.plan import StepPlan
from optical_scale.stream.source import Source, shard_sizes

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Strand:
    """Sources of one kind with the plan of their steps; see :func:`make_strand`."""

    name: str
    sources: tuple[Source, ...]
    sizes: list[tuple[int, ...]]
    plan: StepPlan
    reading: Reading


def portions_of(sources: Sequence[Source]) -> list[Portion]:
    """What mixing needs to know of each source."""
    return [Portion(source.name, source.language, len(source)) for source in sources]


def make_strand(
    sources: Sequence[Source],
    collate: PairCollator,
    mixture: Mixing,
    *,
    seed: int,
    pairs_per_step: int,
    micro_batch_pairs: int | None = None,
    bucketing: Bucketing | None = None,
    canonical_nodes: int = 1,
    policy: Policy = "error",
    name: str = "pairs",
) -> Strand:
    """Join sources and settings.

    Args:
        sources: what to draw from.
        collate: turns their records into batches.
        mixture: of the same sources in the same order.
        seed: data seed.
        pairs_per_step: pairs per optimizer step over all ranks.
        micro_batch_pairs: pairs per micro-batch of one rank; None under a budget.
        bucketing: how pairs are sorted by length, if they are.
        canonical_nodes: sections of the stream, each with its own part of the corpus; 1 is none.
        policy: what happens to samples that cannot be used.
        name: tells strands apart.

    Raises:
        StreamError: sizes that do not divide, or a source that contradicts itself.
    """
    sizes = [shard_sizes(source) for source in sources]
    orders = [
        SampleOrder(source.name, size, seed, canonical_nodes) for source, size in zip(sources, sizes, strict=True)
    ]
    plan = StepPlan(mixture, orders, seed, pairs_per_step, micro_batch_pairs, bucketing)
    return Strand(name, tuple(sources), sizes, plan, Reading(policy, collate, collate.blank))


class Strands:
    """Strands and the schedule of their steps.

    Args:
        strands: at least one, with different names.
        shares: relative number of steps by name; None gives each strand the number of steps of its epoch, so that all
            end an epoch together.
    """

    def __init__(self, strands: Sequence[Strand], shares: Mapping[str, float] | None = None) -> None:
        if not strands:
            raise StreamError("there is nothing to draw from: a stream needs at least one strand")
        self.strands = tuple(strands)
        self._turns = Mixture([Portion(s.name, s.name, s.plan.steps_per_epoch) for s in strands], weights=shares)

    def of(self, step: int) -> tuple[Strand, int]:
        """Whose step it is, and which step of that strand."""
        if len(self.strands) == 1:
            return self.strands[0], step
        turn = self._turns.draw(step)
        return self.strands[turn.source], turn.k

    def first(self, name: str) -> int:
        """The first step of strand ``name``."""
        number = [strand.name for strand in self.strands].index(name)
        return next(step for step in itertools.count() if self.counts(step + 1)[number])

    def counts(self, steps: int) -> tuple[int, ...]:
        """How many of the first ``steps`` steps each strand has."""
        return self._turns.counts(steps)

    def drawn(self, step: int) -> dict[str, int]:
        """Pairs of each language in the first ``step`` steps, over all ranks."""
        total: Counter[str] = Counter()
        for cursor in self._cursors(step):
            total.update(cursor.drawn)
        return dict(total)

    def state(self, step: int) -> dict[str, Any]:
        """Plain values; with one strand its cursor, with several one cursor each."""
        cursors = [cursor.state() for cursor in self._cursors(step)]
        if len(cursors) == 1:
            return cursors[0]
        named = {strand.name: cursor for strand, cursor in zip(self.strands, cursors, strict=True)}
        return {"version": _VERSION, "step": step, "strands": named}

    def _cursors(self, step: int) -> list[StreamCursor]:
        return [
            cursor_at(count, strand.plan, strand.sizes)
            for count, strand in zip(self.counts(step), self.strands, strict=True)
        ]

    def compare(self, state: Mapping[str, Any]) -> tuple[int, list[str]]:
        """The saved step, and what has changed since.

        Raises:
            ResumeError: the state is damaged.
        """
        if len(self.strands) == 1 and "strands" not in state:
            saved = StreamCursor.from_state(dict(state))
            strand = self.strands[0]
            return saved.step, saved.changes(cursor_at(saved.step, strand.plan, strand.sizes))
        try:
            step, cursors = int(state["step"]), dict(state["strands"])
        except (KeyError, TypeError, ValueError) as error:
            raise ResumeError(f"stream state is damaged: {error!r}; use an earlier checkpoint") from error
        if set(cursors) != {strand.name for strand in self.strands}:
            present = ", ".join(strand.name for strand in self.strands)
            return step, [f"strands were {', '.join(cursors)}, are {present}"]
        changes = []
        for count, strand in zip(self.counts(step), self.strands, strict=True):
            saved = StreamCursor.from_state(cursors[strand.name])
            if saved.step != count:
                changes.append(f"{strand.name}: steps so far were {saved.step}, are {count} (the shares changed)")
            else:
                changes += saved.changes(cursor_at(count, strand.plan, strand.sizes))
        return step, changes
