"""A retrieval collection -> its folder, with an account of everything odd."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TypeVar

from optical_scale.config.collections import Collection, DocumentFile, JudgementFile, TopicFile
from optical_scale.corpora.collections import answers, tables, trec
from optical_scale.corpora.collections.folder import CollectionFolder, write_collection
from optical_scale.corpora.collections.parts import DocumentReader, JudgementReader, Topic, TopicReader
from optical_scale.runtime.log import progress

logger = logging.getLogger(__name__)

_DOCUMENTS: Mapping[str, DocumentReader] = {
    "tsv": tables.tsv_documents,
    "jsonl": tables.jsonl_documents,
    "trec": trec.documents,
    "lareqa": answers.lareqa_documents,
    "afriqa": answers.afriqa_documents,
}
_TOPICS: Mapping[str, TopicReader] = {
    "tsv": tables.tsv_topics,
    "jsonl": tables.jsonl_topics,
    "lareqa": answers.lareqa_topics,
    "afriqa": answers.afriqa_topics,
    "afriqa_translations": answers.afriqa_translations,
}
_JUDGEMENTS: Mapping[str, JudgementReader] = {
    "qrels": tables.judgements,
    "lareqa": answers.lareqa_judgements,
    "afriqa": answers.afriqa_judgements,
}
File = TypeVar("File", DocumentFile, TopicFile, JudgementFile)
Part = TypeVar("Part")


def convert_collection(config: Collection, folder: Path, output: Path) -> CollectionFolder:
    """Write the folder of a collection; relative paths start at ``folder``.

    Raises:
        CorpusError: a file is missing or malformed, parts contradict each other, or ``output`` holds something; the
            rules are those of :func:`~optical_scale.corpora.collections.folder.write_collection`.
    """
    documents = _all(config.documents, lambda file: _DOCUMENTS[file.format](folder / file.path))
    counts = write_collection(
        output,
        config.name,
        progress(documents, "convert", None, unit="document"),
        {tag: read_topics(language.topics, folder) for tag, language in config.languages.items()},
        {
            tag: _all(language.judgements, lambda file: _JUDGEMENTS[file.format](folder / file.path))
            for tag, language in config.languages.items()
        },
    )
    for what, number in counts.items():
        logger.warning("%s: %s: %s", config.name, what, f"{number:,}")
    collection = CollectionFolder(output)
    sizes = ", ".join(f"{number:,} {tag}" for tag, number in collection.manifest["topics"].items())
    logger.info("%s: %s documents; topics: %s", output, f"{collection.manifest['documents']:,}", sizes)
    return collection


def read_topics(files: Sequence[TopicFile], folder: Path) -> Iterator[Topic]:
    """The topics of all files, in their order."""
    return _all(
        files,
        lambda file: (trec.topics(file.fields) if file.format == "trec" else _TOPICS[file.format])(folder / file.path),
    )


def _all(files: Sequence[File], read: Callable[[File], Iterator[Part]]) -> Iterator[Part]:
    return chain.from_iterable(map(read, files))
