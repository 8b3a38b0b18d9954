"""Run files of TREC: ``topic Q0 document rank score tag`` on every line."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from optical_scale.corpora.reader import read_lines
from optical_scale.errors import EvaluationError
from optical_scale.evaluation.measures import Run
from optical_scale.evaluation.search import Hits
from optical_scale.runtime.files import write_atomic


def as_run(topics: Iterable[str], hits: Hits, ids: tuple[str, ...]) -> Run:
    """Documents by name: topic q of ``topics`` is row q of ``hits``, position k is ``ids[k]``."""
    return {
        topic: [(ids[at], float(score)) for at, score in zip(row, scores, strict=True) if at >= 0]
        for topic, row, scores in zip(topics, hits.positions_QK.tolist(), hits.scores_QK, strict=True)
    }


def write_run(path: Path, run: Run, tag: str) -> None:
    """Write a run, atomically; scores with six decimals, so that ties stay ties."""
    lines = [
        f"{topic} Q0 {document} {rank} {score:.6f} {tag}\n"
        for topic, documents in run.items()
        for rank, (document, score) in enumerate(documents, start=1)
    ]
    write_atomic(path, "".join(lines))


def read_run(path: Path) -> Run:
    """Read a run of any system. As in trec_eval the rank column is ignored: the score decides, then the higher id.

    Raises:
        CorpusError: the file cannot be read.
        EvaluationError: a line has other columns, a score is no number, or a document occurs twice for a topic.
    """
    found: dict[str, dict[str, float]] = {}
    for number, line in enumerate(read_lines(path), start=1):
        if not (row := line.split()):
            continue
        score = _number(row[4]) if len(row) == 6 else None
        if score is None:
            raise EvaluationError(
                f"{path}:{number}: {line[:80]!r}; expected `topic Q0 document rank score tag`, the score a number"
            )
        documents = found.setdefault(row[0], {})
        if row[2] in documents:
            raise EvaluationError(f"{path}:{number}: topic {row[0]} lists document {row[2]} twice; remove one")
        documents[row[2]] = score
    return {topic: in_order(documents) for topic, documents in found.items()}


def in_order(scores: Mapping[str, float]) -> list[tuple[str, float]]:
    """Best first; of equal scores the higher id first, as trec_eval sorts."""
    return sorted(scores.items(), key=lambda item: (item[1], item[0]), reverse=True)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if value == value else None
