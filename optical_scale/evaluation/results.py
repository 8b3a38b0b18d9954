"""One line of a results table: a language under one score in one direction, with chance level and per-query values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from optical_scale.evaluation.encoding import EncodedSet
from optical_scale.evaluation.ranking import (
    Ranks,
    Values,
    any_hit,
    average_precision,
    chance_any_hit,
    chance_average_precision,
    chance_reciprocal_rank,
    reciprocal_rank,
)
from optical_scale.evaluation.scoring import dense_ranks, maxsim_ranks
from optical_scale.runtime.world import World

Mode = Literal["dense", "late_interaction"]
Score = Mode | Literal["transport_plan"]
Direction = Literal["text_to_text", "text_to_image", "image_to_text", "phrase_to_region", "phrase_to_image"]

RANKERS = {"dense": dense_ranks, "late_interaction": maxsim_ranks}
"""The function that ranks under each mode."""


@dataclass(frozen=True, slots=True)
class RetrievalResult:
    """Quality of one search task.

    Attributes:
        evaluation: ``bitext``, ``image_text``, ``collection``, ``grounding`` or ``entity_retrieval``; of a part of
            the queries ``grounding:people``.
        language: BCP-47 tag of the student's side.
        mode: the score.
        direction: what searches what.
        metrics: mean over queries by name, for example ``R@k`` (any-hit), ``MRR``, ``MAP``.
        chance: what a uniformly random order would score in expectation, same names.
        queries: number of queries.
        documents: number of documents searched.
        per_query: the values behind each metric, in the order of the queries, float64 (Q,).
        baselines: by name, the same metrics of something simple that needs no model.
        counted: queries left out or treated apart, by the reason in words.
    """

    evaluation: str
    language: str
    mode: Score
    direction: Direction
    metrics: Mapping[str, float]
    chance: Mapping[str, float]
    queries: int
    documents: int
    per_query: Mapping[str, Values]
    baselines: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    counted: Mapping[str, int] = field(default_factory=dict)

    @property
    def reciprocal_ranks(self) -> Values:
        """Reciprocal rank of each query, float64 (Q,)."""
        return self.per_query["MRR"]


def search(
    queries: EncodedSet, documents: EncodedSet, relevant: Sequence[Sequence[int]], mode: Mode, world: World
) -> Ranks:
    """Ranks of the relevant documents under ``mode``."""
    return RANKERS[mode](queries, documents, relevant, top_k=1, world=world).ranks


def summarise(
    evaluation: str,
    language: str,
    mode: Mode,
    direction: Direction,
    ranks: Ranks,
    documents: int,
    cutoffs: Sequence[int],
) -> RetrievalResult:
    """Metrics and chance levels from the ranks of every query's relevant documents."""
    per_query = {f"R@{k}": any_hit(ranks, k) for k in cutoffs}
    per_query |= {"MRR": reciprocal_rank(ranks), "MAP": average_precision(ranks)}
    sizes, counts = np.unique([len(r) for r in ranks], return_counts=True)
    chance = {f"R@{k}": [chance_any_hit(int(r), documents, k) for r in sizes] for k in cutoffs}
    chance["MRR"] = [chance_reciprocal_rank(int(r), documents) for r in sizes]
    chance["MAP"] = [chance_average_precision(int(r), documents) for r in sizes]
    return RetrievalResult(
        evaluation,
        language,
        mode,
        direction,
        metrics={name: float(values.mean()) for name, values in per_query.items()},
        chance={name: float(np.average(values, weights=counts)) for name, values in chance.items()},
        queries=len(ranks),
        documents=documents,
        per_query=per_query,
    )
