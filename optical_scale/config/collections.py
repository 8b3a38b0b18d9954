"""Which files make a retrieval collection: documents, and for every language topics and judgements."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from optical_scale.config.schema import Schema


class DocumentFile(Schema):
    """Documents to be found."""

    format: Literal["tsv", "jsonl", "trec", "lareqa", "afriqa"]
    """tsv: id, perhaps title, text (MS MARCO, mMARCO, WikiCLIR). jsonl: corpus.jsonl of BEIR. trec: <DOC> elements of
    TREC and CLEF. lareqa: sentences of XQuAD-R. afriqa: gold passages of AfriQA."""
    path: Path
    """The file, plain or compressed, UTF-8."""


class TopicFile(Schema):
    """Texts that search."""

    format: Literal["tsv", "jsonl", "trec", "lareqa", "afriqa", "afriqa_translations"]
    """tsv: id and text. jsonl: queries.jsonl of BEIR. trec: <top> or <topic> elements. lareqa: questions of XQuAD-R.
    afriqa: questions of AfriQA; afriqa_translations: the same in English or French."""
    path: Path
    """The file, plain or compressed, UTF-8."""
    fields: Annotated[list[str], Field(min_length=1)] = ["title"]
    """For trec: the tags that make the query, such as [title, desc]."""

    @model_validator(mode="after")
    def _fields_belong_to_trec(self) -> "TopicFile":
        if self.format != "trec" and self.fields != ["title"]:
            raise ValueError(f"fields choose tags of trec topics; {self.format} has none, remove them")
        return self


class JudgementFile(Schema):
    """Which documents are relevant."""

    format: Literal["qrels", "lareqa", "afriqa"] = "qrels"
    """qrels: four columns as in TREC, or three below a header as in BEIR. lareqa and afriqa: out of the answers."""
    path: Path
    """The file, plain or compressed, UTF-8."""


class TopicLanguage(Schema):
    """One language of a collection."""

    topics: Annotated[list[TopicFile], Field(min_length=1)]
    judgements: Annotated[list[JudgementFile], Field(min_length=1)]


class Collection(Schema):
    """A retrieval collection: `optical-scale convert` writes it as one folder."""

    name: Annotated[str, Field(min_length=1)]
    """For logs and the manifest."""
    documents: Annotated[list[DocumentFile], Field(min_length=1)]
    """All files together are the collection."""
    languages: Annotated[dict[str, TopicLanguage], Field(min_length=1)]
    """By BCP-47 tag of the topics."""
