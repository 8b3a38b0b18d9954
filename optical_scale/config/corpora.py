"""Which files make a corpus, one schema per format."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from optical_scale.config.image_corpora import ImageCorpus, Provenance
from optical_scale.config.schema import CorpusName, Schema


class _Named(Provenance):
    name: CorpusName
    """First part of every sample key; the same name may serve several languages."""


class _Bitext(_Named):
    language: str
    """BCP-47 tag of the other side, for example sw, pt-BR or zh-Hans."""

    @property
    def key_prefixes(self) -> list[str]:
        """What the keys of the corpus start with."""
        return [f"{self.name}-{self.language}".lower()]


class Moses(_Bitext):
    """Bitext in two files, line n of one translating line n of the other; plain, gzip, bzip2, xz or zstd."""

    format: Literal["moses"] = "moses"
    source: Path
    """The English side."""
    target: Path
    """The other side."""


class Opus(_Bitext):
    """The zip archive of two aligned files that OPUS offers as `moses`."""

    format: Literal["opus"] = "opus"
    path: Path
    """The archive."""
    code: str = ""
    """How the archive writes the language, its members' last extension; empty: as `language`."""
    source_code: str = "en"
    """How the archive writes English."""


class Table(_Bitext):
    """Bitext in two columns of a TSV or CSV file; also the tab-separated files of Tatoeba and manythings."""

    format: Literal["table"] = "table"
    path: Path
    """The file, plain or compressed."""
    source: str
    """Name of the English column."""
    target: str
    """Name of the other column."""
    columns: list[str] = []
    """Names of all columns of a file without a header; empty: the first row names them."""
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = "\t"
    """What separates columns."""
    negatives: list[str] = []
    """Names of columns of texts that do not answer the target, as the third of triples.train.small.tsv."""
    quoted: bool = False
    """Whether quotes may surround fields, as in CSV; if not, a quote is a character like any other."""


class JsonLines(_Bitext):
    """Bitext in two fields of JSON lines."""

    format: Literal["jsonl"] = "jsonl"
    path: Path
    """The file, plain or compressed."""
    source: str
    """Field of the English side; dots lead into objects: translation.en."""
    target: str
    """Field of the other side."""


class Lists(_Bitext):
    """Queries with passages that answer them and passages that do not, as JSON lines; `language` is the queries'."""

    format: Literal["lists"] = "lists"
    path: Path
    """The file, plain or compressed."""
    query: str = "query"
    """Field of the query."""
    positives: str = "pos"
    """Field of the passages that answer it, a text or a list; each makes a pair, whose English side it is."""
    negatives: Annotated[list[str], Field(min_length=1)] = ["neg"]
    """Fields of passages that do not, texts or lists: [neg], or [negative_1, negative_2]."""
    scores: list[str] = []
    """Fields of scores of all of them in this order, best a cross-encoder's: [scores], or [pos_scores, neg_scores]."""


class Tmx(_Bitext):
    """A translation memory in TMX."""

    format: Literal["tmx"] = "tmx"
    path: Path
    """The file, plain or compressed."""
    code: str = ""
    """How the file writes the language, regions may follow; empty: as `language`."""
    source_code: str = "en"
    """How the file writes English, regions may follow."""


class Xliff(_Bitext):
    """Translations in XLIFF 1 or 2; English may be the source or the target."""

    format: Literal["xliff"] = "xliff"
    path: Path
    """The file, plain or compressed."""
    code: str = ""
    """How the file writes the language, regions may follow; empty: as `language`."""
    source_code: str = "en"
    """How the file writes English, regions may follow."""


class Bible(_Bitext):
    """Two Bibles in XML (CES), joined by verse."""

    format: Literal["bible"] = "bible"
    source: Path
    """The English translation."""
    target: Path
    """The other translation."""


class Squad(_Bitext):
    """Two translations of question answering data in the layout of SQuAD, joined by paragraph and question id."""

    format: Literal["squad"] = "squad"
    source: Path
    """The English file."""
    target: Path
    """The other file."""
    parts: Annotated[list[Literal["contexts", "questions"]], Field(min_length=1)] = ["contexts", "questions"]
    """What becomes pairs."""


class Parquet(_Bitext):
    """Bitext in two columns of a Parquet file; needs the package pyarrow."""

    format: Literal["parquet"] = "parquet"
    path: Path
    """The file."""
    source: str
    """Column of the English side; dots lead into structures: translation.en."""
    target: str
    """Column of the other side."""


class Parallel(_Named):
    """A set translated into many languages, one line-aligned file each, as pairs with English."""

    format: Literal["parallel"] = "parallel"
    source: str
    """The English file; {code} in it stands for the other language, where each has its own English file."""
    target: str
    """Pattern of the other files, with {code}."""
    languages: Annotated[list[str], Field(min_length=1)]
    """BCP-47 tags of the other languages."""
    codes: dict[str, str] = {}
    """By tag, what stands for {code} where it is not the tag."""

    @property
    def key_prefixes(self) -> list[str]:
        """What the keys of the corpus start with."""
        return [f"{self.name}-{language}".lower() for language in self.languages]

    @model_validator(mode="after")
    def _languages_fit(self) -> "Parallel":
        if "{code}" not in self.target:
            raise ValueError(f"target is {self.target!r}; expected {{code}} where each language's code stands")
        if odd := sorted(set(self.codes) - set(self.languages)):
            raise ValueError(f"codes has {odd[0]!r}, which languages lacks; add it there, or remove the code")
        return self


class Negatives(Schema):
    """Documents of a collection that do not answer a topic though one might think so."""

    candidates: Path
    """By topic, documents with or without scores, of which those judged relevant are left out: a run of
    `optical-scale search` or of a cross-encoder (TREC), qidpidtriples of MS MARCO, JSON lines of ColBERT or PyLate."""
    most: PositiveInt = 32
    """Negatives of a pair: those with the best scores, without scores the first."""
    margin: Annotated[float, Field(gt=0, le=1)] | None = None
    """With scores: negatives have at most this share of the score of the pair's own document, as 0.95, because better
    ones are often unjudged answers; pairs whose document is no candidate have none. null takes all."""


class CollectionPairs(_Bitext):
    """Topics with their relevant documents, out of a collection folder written by `optical-scale convert`."""

    format: Literal["collection"] = "collection"
    path: Path
    """The folder; it must not be the one that the result is evaluated on."""
    negatives: Negatives | None = None
    """Documents to tell from the relevant ones; null for pairs alone."""


Bitext = Moses | Opus | Table | JsonLines | Lists | Tmx | Xliff | Bible | Squad | Parquet | Parallel | CollectionPairs
"""Formats of sentence pairs."""

Corpus = Annotated[Bitext | ImageCorpus, Field(discriminator="format")]
"""One corpus; `format` chooses the schema."""
