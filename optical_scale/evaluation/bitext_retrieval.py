"""Known-item cross-lingual retrieval: a sentence in one language must find its English translation among all others."""

from collections.abc import Mapping, MutableMapping, Sequence

from optical_scale.errors import EvaluationError
from optical_scale.evaluation.encoding import EncodedSet, EncodeText, encode
from optical_scale.evaluation.results import Mode, RetrievalResult, search, summarise
from optical_scale.records import TextPair
from optical_scale.runtime.world import World

CUTOFFS = (1, 10)
MODES: tuple[Mode, ...] = ("dense", "late_interaction")
PassageCache = MutableMapping[tuple[str, ...], EncodedSet]
"""Encoded English collections by their texts; valid as long as the teacher stays frozen."""


def evaluate_bitext(
    pairs: Mapping[str, Sequence[TextPair]],
    encode_queries: EncodeText,
    encode_passages: EncodeText,
    *,
    batch_size: int,
    world: World,
    modes: Sequence[Mode] = MODES,
    passage_cache: PassageCache | None = None,
) -> list[RetrievalResult]:
    """Search each language's English sentences with its foreign sentences.

    Equal English texts are one passage, and equal foreign texts one query, for which every passage paired with it is
    relevant. Passages are ordered by their text, so the order of ``pairs`` changes nothing. ``R@k`` is any-hit, which
    for the usual single relevant passage is recall.

    Args:
        pairs: the evaluation pairs of each language, the same on every rank.
        encode_queries: the student, reading ``TextPair.target``.
        encode_passages: the teacher, reading ``TextPair.source``.
        batch_size: texts per forward pass.
        world: all its ranks must call; they share the encoding and the scoring.
        modes: scores to evaluate.
        passage_cache: keep one dictionary over several calls and the frozen teacher encodes each collection once. None:
            only a language with the same passages as the one before reuses them (n-way parallel data).

    Returns:
        One result per language and mode, in the order of ``pairs``; identical on every rank.

    Raises:
        EvaluationError: a language without pairs, or unusable vectors (see :func:`~.encoding.encode`).
    """
    results = []
    latest: dict[tuple[str, ...], EncodedSet] = {}
    for language, rows in pairs.items():
        queries, passages, relevant = known_items(language, rows)
        cache = latest if passage_cache is None else passage_cache
        if passages not in cache:
            latest.clear()
            cache[passages] = encode(passages, encode_passages, batch_size=batch_size, world=world)
        foreign = encode(queries, encode_queries, batch_size=batch_size, world=world)
        for mode in modes:
            ranks = search(foreign, cache[passages], relevant, mode, world)
            results.append(summarise("bitext", language, mode, "text_to_text", ranks, len(passages), CUTOFFS))
    return results


def known_items(
    language: str, pairs: Sequence[TextPair]
) -> tuple[tuple[str, ...], tuple[str, ...], list[tuple[int, ...]]]:
    """Distinct foreign texts, distinct English texts (both sorted), and each query's relevant positions.

    Raises:
        EvaluationError: ``pairs`` is empty.
    """
    if not pairs:
        raise EvaluationError(f"evaluation: language {language} has no pairs; remove it or add evaluation data")
    passages = tuple(sorted({pair.source for pair in pairs}))
    position = {text: i for i, text in enumerate(passages)}
    found: dict[str, set[int]] = {}
    for pair in pairs:
        found.setdefault(pair.target, set()).add(position[pair.source])
    queries = tuple(sorted(found))
    return queries, passages, [tuple(sorted(found[text])) for text in queries]
