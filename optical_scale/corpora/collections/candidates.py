"""Documents that may be taken for answers, by topic: runs of search engines, triples of MS MARCO, lists of ColBERT.

Which of them answer is not for these files to say: the collection's judgements do, and all others are negatives.
"""

import json
import math
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from optical_scale.corpora.jsonl import parse_json
from optical_scale.corpora.reader import read_lines
from optical_scale.errors import CorpusError

_EXPECTED = (
    "expected `topic Q0 document rank score tag` (TREC), `topic document document ...` (qidpidtriples of MS MARCO), "
    "[topic, document, ...] or [topic, [document, score], ...] (ColBERT), or an object with query_id, document_ids and "
    "scores (PyLate), alike on all lines"
)


class Candidates(NamedTuple):
    """Some documents of a topic, with scores or without, and where they were read."""

    topic: str
    documents: list[str]
    scores: list[float] | None
    where: str


class Choice(NamedTuple):
    """The negatives of one topic and one document that answers it.

    Attributes:
        positions: of the negatives in the collection, the most similar first where there are scores.
        scores: of the answer, then of the negatives; empty where they are not known.
    """

    positions: "array[int]"
    scores: "array[float]"


@dataclass(frozen=True, slots=True)
class Mining:
    """Which candidates become negatives.

    Attributes:
        path: file of candidates, plain or compressed.
        most: negatives of a topic: of those with scores the best, otherwise the first.
        margin: a negative's score is at most this share of the answer's, because better ones are often answers that
            nobody judged (de Souza P. Moreira et al. 2024, NV-Retriever, arXiv 2407.15831); of a score below 0 it
            lies as far below. An answer that the file does not list then has no negatives. None takes all.
    """

    path: Path
    most: int
    margin: float | None


def choose(
    mining: Mining, position_of: Callable[[str], int | None], answers: Mapping[str, Iterable[int]]
) -> tuple[dict[str, dict[int, Choice]], Counter[str]]:
    """The negatives of every topic and answer.

    Args:
        mining: the file, and what to take.
        position_of: a document's place in the collection.
        answers: places of the documents that answer each topic.

    Returns:
        Choices by topic and answer, and how often something was left out.

    Raises:
        CorpusError: the file cannot be read or is malformed, lists documents that the collection lacks, lists a topic
            with scores twice, or has no scores though there is a margin.
    """
    chosen: dict[str, dict[int, Choice]] = {}
    plain: dict[str, array[int]] = {}  # 8 bytes each: half a million topics of MS MARCO may have 64
    counts: Counter[str] = Counter()
    wanted = {topic: frozenset(places) for topic, places in answers.items()}
    for found in read_candidates(mining.path):
        right = wanted.get(found.topic)
        if right is None:
            counts["candidates of unknown topic"] += 1
        elif found.scores is None:
            if mining.margin is not None:
                raise CorpusError(f"{found.where}: no scores, which `margin` compares; leave it out")
            kept = plain.setdefault(found.topic, array("q"))
            for at in _positions(found, position_of) if len(kept) < mining.most else ():
                if at not in right and at not in kept:
                    kept.append(at)
        elif found.topic in chosen:
            raise CorpusError(f"{found.where}: topic {found.topic} was listed before; put its lines together")
        else:
            scores = dict(zip(_positions(found, position_of), found.scores, strict=True))
            ranked = sorted(((score, at) for at, score in scores.items() if at not in right), reverse=True)
            chosen[found.topic] = {answer: _within(ranked, scores.get(answer), mining) for answer in right}
            counts["answers not among candidates"] += sum(answer not in scores for answer in right)
    for topic, kept in plain.items():
        chosen[topic] = dict.fromkeys(answers[topic], Choice(kept[: mining.most], array("d")))
    return chosen, +counts


def _within(ranked: list[tuple[float, int]], own: float | None, mining: Mining) -> Choice:
    if mining.margin is not None:
        limit = -math.inf if own is None else own - (1 - mining.margin) * abs(own)
        ranked = [(score, at) for score, at in ranked if score <= limit]
    ranked = ranked[: mining.most]
    scores = array("d", [own, *(score for score, _ in ranked)]) if own is not None else array("d")
    return Choice(array("q", [at for _, at in ranked]), scores)


def _positions(found: Candidates, position_of: Callable[[str], int | None]) -> Iterator[int]:
    for document in found.documents:
        at = position_of(document)
        if at is None:
            raise CorpusError(
                f"{found.where}: document {document} is not in the collection; is the file of another collection?"
            )
        yield at


def read_candidates(path: Path) -> Iterator[Candidates]:
    """Read the file; its first line says how.

    Raises:
        CorpusError: the file cannot be read, is empty, or a line is of no known form.
    """
    first = next((line for line in read_lines(path) if line.strip()), None)
    if first is None:
        raise CorpusError(f"{path}: the file is empty; {_EXPECTED}")
    lines = ((f"{path}:{number}", line) for number, line in enumerate(read_lines(path), start=1) if line.strip())
    if first[:1] in "[{":
        return (_list(parse_json(line, where), where) for where, line in lines)
    if len(first.split()) == 6:
        return _run(lines)
    return (_triple(line.split(), where) for where, line in lines)


def _run(lines: Iterable[tuple[str, str]]) -> Iterator[Candidates]:
    rows = ((where, line.split()) for where, line in lines)
    for topic, group in groupby(rows, key=lambda row: row[1][0]):
        documents: dict[str, float] = {}
        for where, row in group:
            score = _number(row[4]) if len(row) == 6 else None
            if score is None or row[2] in documents:
                raise CorpusError(f"{where}: {' '.join(row)[:80]!r}; {_EXPECTED}, and no document twice")
            documents[row[2]] = score
        yield Candidates(topic, list(documents), list(documents.values()), where)


def _triple(row: list[str], where: str) -> Candidates:
    if len(row) < 3:
        raise CorpusError(f"{where}: {' '.join(row)[:80]!r}; {_EXPECTED}")
    return Candidates(row[0], row[1:], None, where)


def _list(value: object, where: str) -> Candidates:
    match value:
        case {"query_id": topic, "document_ids": [*documents], "scores": [*scores]}:
            pass
        case [topic, *pairs] if pairs and all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
            documents, scores = map(list, zip(*pairs, strict=True))
        case [topic, *documents] if documents:
            return Candidates(_id(topic, where), [_id(name, where) for name in documents], None, where)
        case _:
            raise CorpusError(f"{where}: {json.dumps(value)[:80]}; {_EXPECTED}")
    names, numbers = [_id(name, where) for name in documents], [_number(score) for score in scores]
    if len(set(names)) != len(numbers) or None in numbers:
        raise CorpusError(
            f"{where}: {len(set(names))} documents and {len(numbers)} scores; expected a finite number for each"
        )
    return Candidates(_id(topic, where), names, [number for number in numbers if number is not None], where)


def _id(value: object, where: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise CorpusError(f"{where}: {value!r:.40} where an id is expected; {_EXPECTED}")
    return str(value)


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
