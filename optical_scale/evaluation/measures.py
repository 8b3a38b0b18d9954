"""Graded retrieval metrics through ir-measures (MacAvaney, Macdonald and Ounis, ECIR 2022), which calls trec_eval."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from optical_scale.errors import EvaluationError
from optical_scale.evaluation.ranking import chance_average_precision, chance_reciprocal_rank

Run = Mapping[str, Sequence[tuple[str, float]]]
"""For each topic, documents and scores, best first, ties already broken."""
NAMES = ("nDCG@10", "MAP", "MRR", "P@10", "R@10", "R@100", "R@1000")
_IN_IR_MEASURES = {"MAP": "AP", "MRR": "RR"}


def measure_run(
    qrels: Mapping[str, Mapping[str, int]], run: Run, names: Sequence[str] = NAMES
) -> dict[str, NDArray[np.float64]]:
    """Metrics of every judged topic, in the order of ``qrels``; a topic that the run lacks has 0.

    Ranks are those of the lists in ``run``: trec_eval keeps scores in single precision and would see ties of its own.

    Args:
        qrels: grades by topic and document; every topic has a relevant one.
        run: the lists; see :func:`optical_scale.evaluation.run_files.read_run` for the order of tied scores.
        names: ``MAP``, ``MRR``, or ``nDCG``, ``P``, ``R`` (recall) with ``@`` and a rank.

    Raises:
        EvaluationError: ir-measures is not installed, or a name is unknown.
    """
    try:
        import ir_measures
    except ImportError:
        raise EvaluationError(
            "graded metrics need ir-measures, which is not installed; run `pip install optical-scale[retrieval]`"
        ) from None
    try:
        measures = [ir_measures.parse_measure(_IN_IR_MEASURES.get(name, name)) for name in names]
    except (ValueError, NameError, SyntaxError):
        raise EvaluationError(f"metrics: {', '.join(names)}; expected {', '.join(NAMES)} or other ranks") from None
    ranked = {
        topic: {document: -float(rank) for rank, (document, _) in enumerate(run.get(topic, ()))} for topic in qrels
    }
    rows = {topic: row for row, topic in enumerate(qrels)}
    values = {str(measure): np.zeros(len(rows)) for measure in measures}
    graded = {topic: dict(judged) for topic, judged in qrels.items()}
    for found in ir_measures.iter_calc(measures, graded, ranked):
        values[str(found.measure)][rows[found.query_id]] = found.value
    return {name: values[str(measure)] for name, measure in zip(names, measures, strict=True)}


def chance_levels(
    qrels: Mapping[str, Mapping[str, int]], documents: int, names: Sequence[str] = NAMES
) -> dict[str, float]:
    """Expectation of the metrics over uniformly random orders of the collection, averaged over topics."""
    gains = [np.sort([grade for grade in judged.values() if grade > 0])[::-1] for judged in qrels.values()]
    sizes, counts = np.unique([len(gain) for gain in gains], return_counts=True)

    def mean(values: Sequence[float]) -> float:
        return float(np.average(values, weights=counts))

    def of(name: str) -> float:
        if name == "MAP":
            return mean([chance_average_precision(int(size), documents) for size in sizes])
        if name == "MRR":
            return mean([chance_reciprocal_rank(int(size), documents) for size in sizes])
        metric, _, cutoff = name.partition("@")
        k = min(int(cutoff), documents)
        if metric == "R":
            return k / documents
        if metric == "P":
            return mean([size / documents for size in sizes]) * k / int(cutoff)
        discounts = 1.0 / np.log2(np.arange(2, int(cutoff) + 2))
        ideal = [gain[:k] @ discounts[: len(gain[:k])] for gain in gains]
        found = [gain.sum() / documents * discounts[:k].sum() for gain in gains]
        return float(np.mean(np.divide(found, ideal)))

    return {name: of(name) for name in names}
