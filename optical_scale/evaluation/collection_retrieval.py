"""Cross-lingual retrieval on a collection with judgements: topics in many languages, one set of documents."""

import tempfile
from collections.abc import MutableMapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from optical_scale.corpora.collections.folder import CollectionFolder, Qrels
from optical_scale.evaluation.encoding import EncodeText, encode
from optical_scale.evaluation.measures import NAMES, Run, chance_levels, measure_run
from optical_scale.evaluation.results import Mode, RetrievalResult
from optical_scale.evaluation.run_files import as_run
from optical_scale.evaluation.search import search_matrices
from optical_scale.evaluation.token_matrices import TokenMatrices, write_token_matrices
from optical_scale.runtime.collectives import broadcast_object
from optical_scale.runtime.world import World

MODES: tuple[Mode, ...] = ("dense", "late_interaction")
DEPTH = 1000


@dataclass(frozen=True, slots=True)
class Scratch:
    """Token matrices in a temporary folder, deleted with the last reference to it."""

    matrices: TokenMatrices
    folder: AbstractContextManager[str] | None


MatricesCache = MutableMapping[tuple[str, int | None], Scratch]
"""Encoded collections by fingerprint and passage length; valid as long as the teacher stays frozen."""


def evaluate_collection(
    collection: CollectionFolder,
    encode_topics: EncodeText,
    encode_documents: EncodeText,
    *,
    batch_size: int,
    world: World,
    languages: Sequence[str] | None = None,
    passage_words: int | None = None,
    modes: Sequence[Mode] = MODES,
    cache: MatricesCache | None = None,
) -> list[RetrievalResult]:
    """Search the documents with the topics of every language.

    Args:
        collection: the folder, readable on every rank.
        encode_topics: the student.
        encode_documents: the teacher.
        batch_size: texts per forward pass.
        world: all its ranks must call; they share encoding and search.
        languages: of topics; None takes all.
        passage_words: longer documents are cut into passages of so many words.
        modes: scores to evaluate.
        cache: keep one dictionary over several calls and a frozen teacher encodes each collection once.

    Returns:
        One result per language and mode; ``R@k`` is recall here. Identical on every rank.

    Raises:
        CorpusError: the collection lacks a language.
        EvaluationError: unusable vectors, or ir-measures is not installed.
    """
    key = collection.fingerprint, passage_words
    kept: MatricesCache = {} if cache is None else cache
    if key not in kept:
        kept[key] = _encode(collection, encode_documents, batch_size, world, passage_words)
    matrices = kept[key].matrices
    results = []
    for language in languages or collection.languages:
        topics, qrels = collection.topics(language), collection.qrels(language)
        queries = encode(list(topics.values()), encode_topics, batch_size=batch_size, world=world)
        for mode in modes:
            hits = search_matrices(queries, matrices, mode, top_k=DEPTH, world=world)
            run = as_run(topics, hits, collection.ids)
            results.append(result_of(language, mode, qrels, run, matrices.documents))
    return results


def result_of(language: str, mode: Mode, qrels: Qrels, run: Run, documents: int) -> RetrievalResult:
    """Metrics of a run and their chance levels."""
    per_query = measure_run(qrels, run)
    return RetrievalResult(
        "collection",
        language,
        mode,
        "text_to_text",
        metrics={name: float(values.mean()) for name, values in per_query.items()},
        chance=chance_levels(qrels, documents, NAMES),
        queries=len(qrels),
        documents=documents,
        per_query=per_query,
    )


def _encode(
    collection: CollectionFolder, encode_documents: EncodeText, batch_size: int, world: World, passage_words: int | None
) -> Scratch:
    """Into a folder that lives as long as the result, on rank 0's temporary disk."""
    scratch = tempfile.TemporaryDirectory(prefix="optical-scale-") if world.is_main else None
    folder = Path(broadcast_object(scratch.name if scratch else None)) / "matrices"
    matrices = write_token_matrices(
        folder,
        collection.texts,
        encode_documents,
        source=collection.fingerprint,
        batch_size=batch_size,
        world=world,
        passage_words=passage_words,
    )
    return Scratch(matrices, scratch)
