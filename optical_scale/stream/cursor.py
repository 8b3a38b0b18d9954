"""Where a stream stands: what is saved, and what must not have changed when it is read back.

The position is one number, the next step. The rest of the state describes the sequence that number points into (seed,
pairs per step, sources, probabilities, bucketing), plus the exact draws per language so far, which a resumed run
recomputes and compares: if they differ, the schedule itself changed and continuing would silently repeat or skip pairs.
The number of processes and the workers are absent, because the sequence does not depend on them; so is the micro-batch
size without bucketing.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

from optical_scale.errors import ResumeError
from optical_scale.stream.plan import StepPlan

VERSION = 1


@dataclass(frozen=True, slots=True)
class SourceMark:
    """How a source is recognised: language, number of pairs, and a digest of its shard sizes (they set its order)."""

    language: str
    pairs: int
    shards: str


@dataclass(frozen=True, slots=True)
class StreamCursor:
    """A position in one particular sequence of batches.

    Attributes:
        step: the next step, which is also the number of steps handed out.
        pairs_per_step: pairs in a step over all ranks.
        seed: data seed.
        sources: by name.
        shares: exact probability of each language, as ``numerator/denominator``.
        drawn: pairs handed out so far, by language, over all ranks.
        batching: what else decides which pairs form a step; empty without bucketing.
        canonical_nodes: sections of the stream.
    """

    step: int
    pairs_per_step: int
    seed: int
    sources: dict[str, SourceMark]
    shares: dict[str, str]
    drawn: dict[str, int]
    batching: str = ""
    canonical_nodes: int = 1

    def state(self) -> dict[str, Any]:
        """Plain values for JSON, a few hundred bytes a source at most."""
        marks = {n: {"language": m.language, "pairs": m.pairs, "shards": m.shards} for n, m in self.sources.items()}
        return {
            "version": VERSION,
            "step": self.step,
            "draws": sum(self.drawn.values()),
            "pairs_per_step": self.pairs_per_step,
            "seed": self.seed,
            "sources": marks,
            "shares": dict(self.shares),
            "drawn": dict(self.drawn),
            **({"batching": self.batching} if self.batching else {}),
            **({"canonical_nodes": self.canonical_nodes} if self.canonical_nodes > 1 else {}),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "StreamCursor":
        """Read what :meth:`state` wrote.

        Raises:
            ResumeError: another version, or not a stream state.
        """
        if state.get("version") != VERSION:
            raise ResumeError(f"stream state has version {state.get('version')!r}; this release reads {VERSION}")
        try:
            sources = {
                name: SourceMark(str(mark["language"]), int(mark["pairs"]), str(mark["shards"]))
                for name, mark in state["sources"].items()
            }
            drawn = {language: int(count) for language, count in state["drawn"].items()}
            numbers = {name: int(state[name]) for name in ("step", "pairs_per_step", "seed", "draws")}
            cursor = cls(
                numbers["step"],
                numbers["pairs_per_step"],
                numbers["seed"],
                sources,
                dict(state["shares"]),
                drawn,
                str(state.get("batching", "")),
                int(state.get("canonical_nodes", 1)),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ResumeError(f"stream state is damaged: {error!r}; use an earlier checkpoint") from error
        # Under a budget steps differ in size.
        expected = sum(drawn.values()) if cursor.batching else cursor.step * cursor.pairs_per_step
        if cursor.step < 0 or numbers["draws"] != expected:
            raise ResumeError(
                f"stream state is damaged: {numbers['draws']} draws after {cursor.step} steps of "
                f"{cursor.pairs_per_step} pairs; use an earlier checkpoint"
            )
        return cursor

    def changes(self, present: "StreamCursor") -> list[str]:
        """What differs between this saved position and ``present``, the same step of the present stream, by line."""
        lines = [
            f"{name} was {getattr(self, name)}, is {getattr(present, name)}"
            for name in ("seed", "pairs_per_step", "batching", "canonical_nodes")
            if getattr(self, name) != getattr(present, name)
        ]
        for name in sorted(self.sources.keys() | present.sources.keys()):
            lines += _source_changes(name, self.sources.get(name), present.sources.get(name))
        if lines:
            return lines
        # Shares and counts follow from the above, so they are news only when nothing above changed.
        lines = _differences("probability of", self.shares, present.shares, " (temperature or weights)")
        return lines or _differences("draws so far of", self.drawn, present.drawn, " (the drawing rule changed)")


def cursor_at(step: int, plan: StepPlan, shard_sizes: list[tuple[int, ...]]) -> StreamCursor:
    """The position before ``step`` of the stream that ``plan`` over sources of these shards describes."""
    marks = {
        portion.name: SourceMark(portion.language, portion.pairs, _digest(sizes))
        for portion, sizes in zip(plan.mixture.portions, shard_sizes, strict=True)
    }
    batching = plan.bucketing.describe(plan.micro_batch_pairs) if plan.bucketing else ""
    return StreamCursor(
        step,
        plan.pairs_per_step,
        plan.seed,
        marks,
        plan.mixture.describe(),
        plan.drawn(step),
        batching,
        plan.canonical_nodes,
    )


def _digest(sizes: tuple[int, ...]) -> str:
    return hashlib.blake2b(",".join(map(str, sizes)).encode(), digest_size=8).hexdigest()


def _source_changes(name: str, saved: SourceMark | None, present: SourceMark | None) -> list[str]:
    if saved is None:
        return [f"source {name!r} is new"]
    if present is None:
        return [f"source {name!r} is gone"]
    found = [
        f"source {name!r}: {what} was {before}, is {now}"
        for what, before, now in (("language", saved.language, present.language), ("pairs", saved.pairs, present.pairs))
        if before != now
    ]
    if not found and saved.shards != present.shards:
        found = [f"source {name!r} has the same {saved.pairs} pairs cut into other shards"]
    return found


def _differences(what: str, saved: dict[str, Any], present: dict[str, Any], hint: str) -> list[str]:
    return [
        f"{what} {language} was {saved.get(language)}, is {present.get(language)}{hint}"
        for language in sorted(saved.keys() | present.keys())
        if saved.get(language) != present.get(language)
    ]
