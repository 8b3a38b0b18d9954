"""The root of a conversion: corpora and filters, or a retrieval collection in; one folder out."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from optical_scale.config.collections import Collection
from optical_scale.config.corpora import Bitext, Corpus
from optical_scale.config.schema import Schema

UnicodeForm = Literal["NFC", "NFKC"]


class LanguageIdentification(Schema):
    """A model looks whether each side of a pair is in its language. Needs the extra `langid`."""

    model: Literal["builtin"] | Path = "builtin"
    """`builtin` (138 languages), or a fastText classifier such as lid.176.ftz or GlotLID's model.bin."""
    min_probability: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """Smallest probability of the side's language; low, since it is shared with related languages in short texts."""
    min_letters: PositiveInt = 10
    """Sides with fewer letters are not judged."""
    languages: dict[str, list[str]] = {}
    """By language, the labels of the model that count as it, as {ms: [ms, id]}, in place of those that follow from
    its tag; an empty list leaves the language unjudged, as are those that the model does not know."""


class NearDuplicates(Schema):
    """Pairs almost equal to one kept earlier, by MinHash over pieces of both sides together.

    Of two pairs that share a fraction s of their pieces, the later goes with probability 1 - (1 - s^rows)^bands: by
    default 99 % at s = 0.95, 86 % at 0.9, 35 % at 0.8, 8 % at 0.7, 0.1 % at 0.5.
    """

    bands: NonNegativeInt = 6
    """Digests of a pair, each 22 bytes of disk meanwhile; 0 finds only texts equal but for case, punctuation, spacing
    and the values of digits, which go in any case."""
    rows: PositiveInt = 12
    """Hashes in a digest: more ask for more similarity."""
    piece: PositiveInt = 5
    """Characters of a piece."""


class Filters(Schema):
    """Which pairs to leave out; those with a blank side always are. Applied in this order, the first reason counts."""

    unicode_form: UnicodeForm | None = None
    """Unicode form into which texts are brought before all rules; null leaves them as they are."""
    min_characters: PositiveInt = 1
    """Shortest side, in characters."""
    max_characters: PositiveInt | None = None
    """Longest side, in characters; null sets no limit."""
    min_words: PositiveInt = 1
    """Shortest side, in words between blanks (leave at 1 for scripts without spaces)."""
    max_words: PositiveInt | None = None
    """Longest side, in words between blanks; null sets no limit."""
    max_length_ratio: Annotated[float, Field(ge=1)] | None = None
    """Characters of the longer side over those of the shorter; null sets no limit."""
    max_token_ratio: Annotated[float, Field(ge=1)] | None = None
    """Tokens of the longer side over those of the shorter; null sets no limit. Needs `tokenizer`."""
    tokenizer: Path | None = None
    """A tokenizer.json file for `max_token_ratio`."""
    scripts: dict[str, Annotated[list[str], Field(min_length=1)]] = {}
    """By language, the ISO 15924 codes of its scripts, as {am: [Ethi], ja: [Jpan]}; others are not looked at."""
    min_script_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Smallest share of letters in the language's script (Latin for English), for the languages in `scripts`."""
    drop_swapped: bool = False
    """Leave out pairs whose English side is mostly not in Latin script while the other is; for any language."""
    drop_untranslated: bool = False
    """Leave out pairs with two equal sides, but for case and punctuation; never those in English."""
    held_out: list[Path] = []
    """Text files kept for evaluation: a pair with a side that is a line of them, but for case and punctuation, goes."""
    language_id: LanguageIdentification | None = None
    """Leave out pairs with a side in another language, or swapped sides; null looks at no language."""
    drop_duplicates: bool = True
    """Keep only the first of equal pairs of a language; takes 22 bytes of disk beside the output per pair meanwhile."""
    near_duplicates: NearDuplicates | None = None
    """Leave out pairs that differ little from an earlier one of their language; null looks for equal ones at most."""

    @model_validator(mode="after")
    def _bounds_in_order(self) -> "Filters":
        bounds = {
            "characters": (self.min_characters, self.max_characters),
            "words": (self.min_words, self.max_words),
        }
        for unit, (low, high) in bounds.items():
            if high is not None and high < low:
                raise ValueError(f"max_{unit} is {high}, below min_{unit} = {low}, so no pair is left; swap them")
        if (self.max_token_ratio is None) != (self.tokenizer is None):
            raise ValueError("max_token_ratio and tokenizer need each other; set both or neither")
        return self


class ConvertConfig(Schema):
    """`optical-scale convert`: corpora -> shards."""

    output: Path
    """Folder to create; it must not hold anything."""
    folder: Path = Path()
    """Where relative paths of corpora and held-out files start; the current folder by default."""
    remote: str | None = None
    """URL that fsspec reads, as s3://bucket/corpora: what is named below and `folder` lacks is fetched from there."""
    corpora: list[Corpus] = []
    """All bitext, or all images."""
    collection: Collection | None = None
    """A retrieval collection to evaluate on, in place of `corpora`; no filter applies to it."""
    filters: Filters = Filters()
    """For bitext; the split file chooses images."""
    misaligned: Literal["warn", "error", "ignore"] = "warn"
    """What to do about stretches of bitext whose two sides are out of step; reads every text once more."""
    samples_per_shard: PositiveInt = 20_000
    """Samples after which a new tar begins."""
    processes: PositiveInt | None = None
    """Processes that read images, filter and encode; 1 is the command's own. null takes the cores, fewer if there is
    little to do. The bytes of the output do not depend on it."""

    @model_validator(mode="after")
    def _one_kind_distinct_keys(self) -> "ConvertConfig":
        if bool(self.corpora) == (self.collection is not None):
            raise ValueError("give either `corpora` (at least one) or `collection`; one folder holds one kind")
        if self.collection is not None and self.filters != Filters():
            raise ValueError("filters: a collection is kept as it is, or its judgements would lose their documents")
        if len({isinstance(corpus, Bitext) for corpus in self.corpora}) > 1:
            raise ValueError("corpora: one folder holds bitext or images, not both; convert them separately")
        prefixes = Counter(prefix for corpus in self.corpora for prefix in corpus.key_prefixes)
        for prefix, times in prefixes.items():
            if times > 1:
                raise ValueError(f"corpora: {times} corpora would give keys {prefix}-…; give each its own name")
        return self
