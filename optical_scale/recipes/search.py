"""Searching a collection, as one story: topics, token matrices, runs, metrics."""

import hashlib
import logging
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch.distributed as dist

from optical_scale.config.backbones import TextBackbone
from optical_scale.config.search import Method, SearchConfig
from optical_scale.corpora.collections.folder import CollectionFolder
from optical_scale.errors import ConfigError, EvaluationError
from optical_scale.evaluation.bm25 import Bm25
from optical_scale.evaluation.encoding import encode
from optical_scale.evaluation.measures import Run, measure_run
from optical_scale.evaluation.results import Mode
from optical_scale.evaluation.run_files import as_run, read_run, write_run
from optical_scale.evaluation.search import rerank, search_matrices
from optical_scale.evaluation.token_matrices import TokenMatrices, write_token_matrices
from optical_scale.evaluation.translation import Translator
from optical_scale.recipes.build_inputs import text_tokenizer
from optical_scale.recipes.build_models import text_encoder
from optical_scale.recipes.convert_collection import read_topics
from optical_scale.recipes.evaluate import Encode, frozen
from optical_scale.runtime.collectives import agree_on_errors, broadcast_object
from optical_scale.runtime.files import sha256, write_atomic, write_json
from optical_scale.runtime.world import World

logger = logging.getLogger(__name__)

Metrics = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Means over topics by method, language and name of the metric."""


def search(config: SearchConfig, world: World | None = None) -> Metrics:
    """Search with every method in every language; ranks of a launcher share encoding and search.

    Raises:
        CorpusError: the collection or a file of translations is unusable.
        EvaluationError: the output is not empty, vectors are unusable, or a library of the extra is missing.
    """
    if config.output.exists() and any(config.output.iterdir()):
        raise EvaluationError(f"output: {config.output} is not empty; choose another folder or delete it")
    world = world or _join()
    collection = CollectionFolder(config.collection)
    languages = config.languages or list(collection.languages)
    topics = {language: _topics(config, collection, language, world) for language in languages}
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    with ExitStack() as stack:
        for method, runs in _runs(config, collection, topics, world, stack).items():
            for language, run in runs.items():
                values = measure_run(collection.qrels(language), run)
                metrics.setdefault(method, {})[language] = {name: float(each.mean()) for name, each in values.items()}
                if world.is_main:
                    write_run(config.output / "runs" / f"{method}.{language}.txt", run, f"optical-scale-{method}")
    if world.is_main:
        write_json(config.output / "metrics.json", {"collection": collection.fingerprint, "metrics": metrics})
    return metrics


def table(metrics: Metrics) -> str:
    """One line per method and language."""
    names = list(dict.fromkeys(name for rows in metrics.values() for row in rows.values() for name in row))
    lines = [f"{'method':<18}{'language':<10}" + "".join(f"{name:>9}" for name in names)]
    for method, rows in metrics.items():
        for language, row in rows.items():
            lines.append(f"{method:<18}{language:<10}" + "".join(f"{row[name]:>9.4f}" for name in names))
    return "\n".join(lines)


def _join() -> World:
    """All processes of the launcher, if there is one."""
    world = World.from_env()
    if world.size > 1 and not dist.is_initialized():
        dist.init_process_group("gloo")
    return world


def _topics(config: SearchConfig, collection: CollectionFolder, language: str, world: World) -> dict[str, str]:
    """Texts to search with by topic, translated if the configuration says so."""
    topics = collection.topics(language)
    if files := config.translations.get(language):
        english = {topic.id: topic.text for topic in read_topics(files, config.folder)}
        if missing := sorted(topics.keys() - english.keys()):
            raise ConfigError(f"translations.{language}: {len(missing)} topics are missing, the first is {missing[0]}")
        return {name: english[name] for name in topics}
    if settings := config.translators.get(language):
        found: list[str] = []
        with agree_on_errors(f"translating the topics of {language}"):
            if world.is_main:
                found = Translator(settings.model, settings.source, settings.target)(list(topics.values()))
                lines = "".join(f"{name}\t{' '.join(text.split())}\n" for name, text in zip(topics, found, strict=True))
                write_atomic(config.output / f"translations.{language}.tsv", lines)
        return dict(zip(topics, broadcast_object(found), strict=True))
    return topics


def _runs(
    config: SearchConfig,
    collection: CollectionFolder,
    topics: Mapping[str, Mapping[str, str]],
    world: World,
    stack: ExitStack,
) -> dict[Method, dict[str, Run]]:
    runs: dict[Method, dict[str, Run]] = {method: {} for method in config.methods}
    if "bm25" in config.methods:
        index = Bm25(collection.texts)
        for language, texts in topics.items():
            lexical = index.search(list(texts.values()), config.top_k)
            runs["bm25"][language] = as_run(texts, lexical, collection.ids)
    if config.topics is None:
        return runs
    encode_topics, encode_passages = _encoders(config.topics)
    encode_documents = encode_passages if config.documents is None else _encoders(config.documents)[1]
    matrices = _matrices(config, collection, encode_documents, world, stack)
    modes: list[Mode] = [method for method in config.methods if method != "bm25"]
    for language, texts in topics.items():
        queries = encode(list(texts.values()), encode_topics, batch_size=config.batch_size, world=world)
        candidates = _candidates(config, collection, language, list(texts))
        for mode in modes:
            if candidates is None:
                hits = search_matrices(queries, matrices, mode, top_k=config.top_k, world=world)
            else:
                hits = rerank(queries, matrices, candidates, mode)
            runs[mode][language] = as_run(texts, hits, collection.ids)
    return runs


def _candidates(
    config: SearchConfig, collection: CollectionFolder, language: str, topics: Sequence[str]
) -> list[list[int]] | None:
    if language not in config.rerank:
        return None
    run = read_run(config.rerank[language])
    position = {name: at for at, name in enumerate(collection.ids)}
    for topic in topics:
        for document, _ in run.get(topic, ())[: config.top_k]:
            if document not in position:
                raise EvaluationError(
                    f"rerank.{language}: {config.rerank[language]} lists document {document}, which the collection "
                    "lacks; is the run of another collection?"
                )
    return [[position[document] for document, _ in run.get(topic, ())[: config.top_k]] for topic in topics]


def _matrices(
    config: SearchConfig, collection: CollectionFolder, encode_documents: Encode, world: World, stack: ExitStack
) -> TokenMatrices:
    """Those of the index if they fit, else new ones."""
    backbone = config.documents or config.topics
    assert backbone is not None, "the configuration demands an encoder"
    source = _source(backbone, collection.fingerprint, config)
    folder = config.index
    if folder is not None and folder.exists():
        matrices = TokenMatrices(folder)
        if matrices.source != source:
            raise EvaluationError(
                f"index: {folder} was made by another encoder, from another collection or with another precision or "
                "passage length; delete it or choose another folder"
            )
        logger.info("index: %s is used again", folder)
        return matrices
    if folder is None:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="optical-scale-")) if world.is_main else None
        folder = Path(broadcast_object(scratch)) / "matrices"
    return write_token_matrices(
        folder,
        collection.texts,
        encode_documents,
        source=source,
        batch_size=config.batch_size,
        world=world,
        precision=config.precision,
        passage_words=config.passage_words,
    )


def _source(backbone: TextBackbone, fingerprint: str, config: SearchConfig) -> str:
    """Hash of all that decides the vectors: settings, weights and tokenizer files, documents."""
    said = backbone.model_dump_json(
        exclude={
            "pretrained",
            "tokenizer",
            # Indices that were made before these settings existed stay valid.
            *(["passage_prefix"] if backbone.passage_prefix is None else []),
            *([] if backbone.mask_punctuation else ["mask_punctuation"]),
        }
    )
    lines = [said, fingerprint, config.precision]
    lines.append(str(config.passage_words))
    for folder in filter(None, (backbone.pretrained, backbone.tokenizer)):
        lines += [
            f"{path.relative_to(folder)} {sha256(path)}"
            for path in sorted(folder.rglob("*"))
            if path.suffix in (".json", ".safetensors", ".model", ".txt")
        ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _encoders(config: TextBackbone) -> tuple[Encode, Encode]:
    """Of topics and of documents: one network, whose prefixes may differ."""
    tokenizer = text_tokenizer(config)
    network = text_encoder(config, tokenizer)
    return frozen(network, tokenizer), frozen(network, tokenizer.for_passages())
