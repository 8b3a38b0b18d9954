"""What an inspection says: the models behind its JSON, which refuse anything they do not know.

``Inspection.model_validate(mapping)`` checks plain data, ``inspection.model_dump(mode="json")`` returns it.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from optical_scale.shards.manifest import Kind

EDGES = (0, 1, *(edge for power in range(1, 14) for edge in (2**power, 3 * 2 ** (power - 1))))
"""Where the classes of every histogram begin: 0, 1, 2, 3, 4, 6, 8, 12, … 12288; the last has no end."""

LIMITS = (32, 64, 128, 256, 512)
"""Numbers of tokens at which truncation is counted."""

UNREADABLE = 0.05
"""Share of unknown tokens from which on the other numbers of a tokenizer mislead."""

Side = Literal["english", "target", "negative", "caption"]
Unit = Literal["pairs", "images", "captions"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Spread(_Model):
    """How a number is distributed over what was read.

    Attributes:
        mean: arithmetic mean.
        low: 5th percentile.
        median: 50th percentile.
        high: 95th percentile.
        most: maximum.
        counts: of the classes that begin at :data:`EDGES`.
    """

    mean: float
    low: float
    median: float
    high: float
    most: int
    counts: tuple[int, ...]


class Tokens(_Model):
    """What a tokenizer makes of the texts of one side.

    Attributes:
        tokenizer: its name.
        lengths: tokens of a text as an encoder sees it, special ones included.
        per_word: tokens, without special ones, for each word between blanks (fertility); None where words are not
            separated by blanks.
        characters_per_token: of the texts, blanks included; None if there is no token.
        premium: tokens of the target side for each token of the English side of the same pairs (Petrov et al. 2023,
            arXiv 2305.15425); None for anything else than a target.
        unknown: share of the tokens, without special ones, for which the vocabulary has no piece.
        truncated: share of the texts with more tokens than each limit.
        lost: share of all tokens that lie beyond each limit.
    """

    tokenizer: str
    lengths: Spread
    per_word: float | None
    characters_per_token: float | None
    premium: float | None
    unknown: float
    truncated: dict[int, float]
    lost: dict[int, float]


class Texts(_Model):
    """The texts of one side in one language.

    Attributes:
        language: of the pairs or captions, as the manifest counts them.
        side: ``english`` and ``target`` of pairs, or ``caption``.
        read: number of texts behind these statistics.
        characters: code points of a text.
        words: runs of characters between blanks.
        spaced: False where most letters belong to scripts written without blanks between words, so that words mean
            little.
        tokens: one for each tokenizer.
    """

    language: str
    side: Side
    read: int = Field(ge=1)
    characters: Spread
    words: Spread
    spaced: bool
    tokens: tuple[Tokens, ...]


class Images(_Model):
    """The images.

    Attributes:
        read: number of images behind these statistics.
        formats: images by extension.
        width: pixels.
        height: pixels.
        kibibytes: size of the encoded file, rounded up.
        captions: mean number of captions of an image, by language.
        bare: images without any caption in a language, by language.
        phrases: by type.
        unplaced: phrases without a box, by type.
        boxes: by type of the phrases that name them; a box that has phrases of two types counts under both.
        unnamed: boxes that no phrase names.
    """

    read: int = Field(ge=1)
    formats: dict[str, int]
    width: Spread
    height: Spread
    kibibytes: Spread
    captions: dict[str, float]
    bare: dict[str, int]
    phrases: dict[str, int]
    unplaced: dict[str, int]
    boxes: dict[str, int]
    unnamed: int


class Account(_Model):
    """What became of one corpus in one language; read from the source is ``kept`` plus all of ``dropped``.

    Attributes:
        corpus: its name.
        language: of pairs and captions; ``""`` for images.
        unit: what is counted.
        kept: how many are in the folder.
        exact: False where ``kept`` is the share of the corpus among the samples read times the manifest's count.
        dropped: how many were left out, by reason.
    """

    corpus: str
    language: str
    unit: Unit
    kept: int
    exact: bool
    dropped: dict[str, int]


class Terms(_Model):
    """What the manifest says of where a corpus comes from; empty if nothing."""

    corpus: str
    license: str
    origin: str


class Parts(_Model):
    """Boxes, phrases or negatives that were left out of records that were kept; never part of an :class:`Account`."""

    corpus: str
    reason: str
    number: int


class InLanguage(_Model):
    """Contents by language, from the manifest.

    Attributes:
        language: BCP-47 tag.
        samples: pairs, or captions of images.
        shards: tars that hold them; None for images, whose tars hold all languages.
        bytes: of these tars; None for images.
        read: pairs or captions behind the statistics.
    """

    language: str
    samples: int
    shards: int | None
    bytes: int | None
    read: int


class UsedTokenizer(_Model):
    """A tokenizer: its name in this report, where it was read and how many pieces it has."""

    name: str
    path: str
    pieces: int


class ShownText(_Model):
    """One text of a sample, with its number of tokens by tokenizer, special ones included."""

    language: str
    side: Side
    text: str
    tokens: dict[str, int]


class Shown(_Model):
    """A sample as an example; ``width`` and ``height`` are 0 for pairs."""

    key: str
    corpus: str
    language: str
    texts: tuple[ShownText, ...]
    width: int = 0
    height: int = 0
    boxes: int = 0


class Inspection(_Model):
    """What is in a shard folder.

    Attributes:
        schema_version: of this layout.
        folder: as it was named.
        kind: ``bitext`` or ``images``.
        format_version: of the folder.
        fingerprint: of the folder.
        corpora: names, in the order of conversion.
        samples: pairs or images.
        shards: number of tars.
        bytes: of all tars.
        seed: of the choice of samples.
        limit: most samples read in a language (of images: in all).
        edges: where the classes of the histograms begin.
        languages: contents by language.
        accounts: kept and dropped by corpus and language.
        parts: boxes and phrases left out.
        terms: licences and origins.
        tokenizers: what tokens were counted with.
        texts: statistics by language and side.
        images: statistics of images; None for bitext.
        shown: samples, as many as asked for of each language (of images: in all).
    """

    schema_version: Literal[1] = 1
    folder: str
    kind: Kind
    format_version: int
    fingerprint: str
    corpora: tuple[str, ...]
    samples: int
    shards: int
    bytes: int
    seed: int
    limit: int
    edges: tuple[int, ...]
    languages: tuple[InLanguage, ...]
    accounts: tuple[Account, ...]
    parts: tuple[Parts, ...]
    terms: tuple[Terms, ...] = ()
    tokenizers: tuple[UsedTokenizer, ...]
    texts: tuple[Texts, ...]
    images: Images | None
    shown: tuple[Shown, ...]
