"""Which shards are read, in which proportion, and how many pairs make a step."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from optical_scale.config.schema import Schema


class Source(Schema):
    """A folder written by `optical-scale convert`."""

    shards: str
    """Folder with manifest.json, or a URL that fsspec can read, such as s3://bucket/folder."""
    languages: list[str] | None = None
    """Languages to take; null takes all."""


class Phase(Schema):
    """A later part of the curriculum."""

    from_step: PositiveInt
    """First optimizer step of the phase."""
    temperature: PositiveFloat = 1.0
    """As in the stream."""
    weights: dict[str, PositiveFloat] | None = None
    """As in the stream."""


class Bucketing(Schema):
    """Micro-batches of pairs that are about equally long."""

    look_ahead: PositiveInt = 8192
    """Pairs sorted together; more means less padding. At least one step is."""
    tokens: PositiveInt | None = None
    """Most tokens of a micro-batch, both sides and padding included: rows x (longest English + longest target), where
    each pair has 1 + `negatives` English rows."""
    transport: PositiveInt | None = None
    """Most entries of a micro-batch's cost matrices: rows x longest English x longest target."""
    lanes: PositiveInt | None = None
    """With a budget: micro-batches of a step are a multiple of this; numbers of processes that divide it can run."""
    lengths: Path | None = None
    """Where token counts are kept, a folder that all processes see; null: `lengths` in the run folder."""

    @property
    def has_budget(self) -> bool:
        """Micro-batches are cut by cost instead of by number of pairs."""
        return self.tokens is not None or self.transport is not None

    @model_validator(mode="after")
    def _lanes_belong_to_a_budget(self) -> "Bucketing":
        if self.has_budget != (self.lanes is not None):
            raise ValueError("`lanes` belongs to a budget: set it together with `tokens` or `transport`, and only then")
        return self


class Cache(Schema):
    """Local copies of shards behind URLs."""

    folder: Path
    """On every node, shared by its processes."""
    gigabytes: PositiveFloat = 100.0
    """The least recently opened shards are deleted above this."""
    attempts: PositiveInt = 5
    """Tries of a failing read, with growing waits in between."""


class Faults(Schema):
    """What happens to samples that cannot be used: missing or damaged shards, images that do not decode."""

    policy: Literal["error", "skip"] = "error"
    """error stops at the first; skip leaves the sample out and counts the reason in the log."""
    most: NonNegativeInt = 100
    """With skip: more than so many samples, over all processes and the whole run, stop the run."""


class Images(Schema):
    """Captioned images for `student.vision`, in steps of their own between those of the bitext."""

    sources: Annotated[list[Source], Field(min_length=1)]
    """All must hold images."""
    pairs_per_step: PositiveInt
    """Images behind one update of the vision tower, over all ranks and accumulation."""
    micro_batch_pairs: PositiveInt
    """Images that one rank encodes at once."""
    steps: PositiveFloat | None = None
    """Steps with images for each step with bitext; null: so many that both end their epochs together."""


class Stream(Schema):
    """The training stream."""

    sources: Annotated[list[Source], Field(min_length=1)]
    """All must hold bitext, or all images."""
    images: Images | None = None
    """For a student with two towers: what the second one reads. `sources` then hold bitext."""
    pairs_per_step: PositiveInt
    """Pairs behind one optimizer update, over all ranks and accumulation; under a budget their mean."""
    micro_batch_pairs: PositiveInt | None = None
    """Pairs that one rank encodes at once; accumulation follows from the three numbers. null under a budget."""
    negatives: NonNegativeInt = 0
    """Negatives of each pair that are used at a time, of those its shards hold; the others follow in later epochs."""
    bucketing: Bucketing | None = None
    """Sort pairs by length, and cut them by cost if there is a budget; null takes them as they come."""
    temperature: PositiveFloat = 1.0
    """T in p ∝ n^(1/T) over languages; 1 is exhaustive (every pair once an epoch), larger favours small languages."""
    weights: dict[str, PositiveFloat] | None = None
    """Explicit language weights instead of the temperature rule."""
    curriculum: list[Phase] = []
    """Other temperatures or weights from later steps on."""
    canonical_nodes: PositiveInt = 1
    """Sections of the stream, each with its own part of the corpus in an epoch, so that a node does not come by every
    shard: as many as the largest run has nodes. Processes divide it or are a multiple; it cannot change in a run."""
    tokens: Path | None = None
    """Token ids of the bitext that `optical-scale tokenize` wrote, a folder that all processes see; those of other
    shards or tokenizers are refused. null tokenises while training."""
    faults: Faults = Faults()
    cache: Cache | None = None
    """Needed if a source is a URL."""
    workers: NonNegativeInt = 0
    """Loader processes per rank, each two micro-batches ahead; 0 leaves reading ahead to a thread of the rank."""
    read_ahead_mib: NonNegativeInt = 256
    """With `workers: 0`: the thread prepares the next step as long as less than this waits; 0 reads when asked."""

    @property
    def lanes(self) -> int:
        """Micro-batches of a step over all ranks; under a budget the number of which they are a multiple."""
        if self.bucketing is not None and self.bucketing.lanes is not None:
            return self.bucketing.lanes
        assert self.micro_batch_pairs is not None
        return self.pairs_per_step // self.micro_batch_pairs

    @property
    def shares(self) -> dict[str, float] | None:
        """Relative number of steps of each strand; None lets all end their epochs together."""
        if self.images is None or self.images.steps is None:
            return None
        return {"pairs": 1.0, "images": self.images.steps}

    def strands(self) -> dict[str, "Stream"]:
        """What each kind of step would be as a stream of its own."""
        if self.images is None:
            return {"pairs": self}
        images = Stream(
            sources=self.images.sources,
            pairs_per_step=self.images.pairs_per_step,
            micro_batch_pairs=self.images.micro_batch_pairs,
            canonical_nodes=self.canonical_nodes,
            faults=self.faults,
            cache=self.cache,
        )
        return {"pairs": self.model_copy(update={"images": None}), "images": images}

    @model_validator(mode="after")
    def _one_size_of_micro_batches(self) -> "Stream":
        budget = self.bucketing is not None and self.bucketing.has_budget
        if budget and self.micro_batch_pairs is not None:
            raise ValueError(
                "`bucketing` has a budget, which decides the size of micro-batches; remove micro_batch_pairs"
            )
        if not budget and self.micro_batch_pairs is None:
            raise ValueError("set micro_batch_pairs, or a budget in `bucketing`")
        if self.negatives and self.tokens is not None:
            raise ValueError("`tokens` stores the ids of pairs without their negatives; set `tokens` to null")
        if self.lanes % self.canonical_nodes:
            raise ValueError(
                f"a step has {self.lanes} micro-batches, which {self.canonical_nodes} canonical_nodes do not divide; "
                "make pairs_per_step (under a budget: lanes) a multiple of them"
            )
        every = [*self.sources, *(self.images.sources if self.images else [])]
        if self.cache is None and any("://" in source.shards for source in every):
            raise ValueError("a source is a URL; set cache.folder to a local folder for its shards")
        starts = [phase.from_step for phase in self.curriculum]
        if starts != sorted(set(starts)):
            raise ValueError(f"curriculum: from_step must ascend; found {starts}")
        return self
