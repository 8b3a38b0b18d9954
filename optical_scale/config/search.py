"""The root of a search: collection, methods and encoders in, run files and metrics out."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from optical_scale.config.backbones import TextBackbone
from optical_scale.config.collections import TopicFile
from optical_scale.config.schema import Schema

Method = Literal["bm25", "dense", "late_interaction"]


class Translator(Schema):
    """A local translation model: the topics are searched in its English."""

    model: Path
    """Folder of transformers with a sequence-to-sequence model, for example MarianMT or NLLB."""
    source: str | None = None
    """The model's code of the topics' language, as swh_Latn; null for models of one pair of languages."""
    target: str | None = None
    """The model's code of English; null likewise."""


class SearchConfig(Schema):
    """`optical-scale search`: search a collection, write run files, measure them."""

    output: Path
    """Folder to create: runs/METHOD.LANGUAGE.txt and metrics.json."""
    collection: Path
    """Collection folder written by `optical-scale convert`."""
    folder: Path = Path()
    """Where relative paths of `translations` start."""
    methods: Annotated[list[Method], Field(min_length=1)] = ["dense", "late_interaction"]
    """dense: cosine of pooled vectors. late_interaction: MaxSim. bm25: words in common."""
    languages: list[str] | None = None
    """Languages of topics; null takes all."""
    topics: TextBackbone | None = None
    """Encodes the topics, usually the student."""
    documents: TextBackbone | None = None
    """Encodes the documents, usually the teacher; null: as `topics`."""
    index: Path | None = None
    """Folder of token matrices: made if missing, used again if encoder and collection are the same; null keeps none."""
    precision: Literal["float16", "bfloat16"] = "float16"
    """Of token vectors on disk."""
    passage_words: Annotated[int, Field(ge=2)] | None = None
    """Longer documents are cut into passages of so many words, and count as their best one; null: the encoder cuts."""
    top_k: PositiveInt = 1000
    """Documents per topic."""
    rerank: dict[str, Path] = {}
    """By language, a run in TREC's format: only its documents are scored, by dense or late_interaction."""
    translations: dict[str, Annotated[list[TopicFile], Field(min_length=1)]] = {}
    """By language, the same topics in English: they are searched in place of the originals."""
    translators: dict[str, Translator] = {}
    """By language, a model that makes such translations; they are kept in the output as translations.LANGUAGE.tsv."""
    batch_size: PositiveInt = 64
    """Texts per forward pass."""

    @model_validator(mode="after")
    def _parts_fit(self) -> "SearchConfig":
        if self.topics is None and set(self.methods) != {"bm25"}:
            raise ValueError("dense and late_interaction need `topics`, the encoder")
        if self.rerank and "bm25" in self.methods:
            raise ValueError("rerank: bm25 searches the whole collection; remove it from `methods`")
        if both := sorted(set(self.translations) & set(self.translators)):
            raise ValueError(f"translations and translators both have {both[0]}; remove one")
        return self
