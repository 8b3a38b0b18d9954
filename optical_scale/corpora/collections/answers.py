"""Question answering sets read as collections: the passage that answers a question is the relevant document.

Roy et al., "LAReQA", EMNLP 2020 (XQuAD-R: sentences); Ogundepo et al., "AfriQA", EMNLP Findings 2023 (gold passages).
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optical_scale.corpora.collections.parts import Document, Judgement, Topic, check_id
from optical_scale.corpora.jsonl import parse_json
from optical_scale.corpora.reader import check_text, read_lines
from optical_scale.errors import CorpusError


def lareqa_documents(path: Path) -> Iterator[Document]:
    """The sentences of XQuAD-R, ids ``article-paragraph-sentence``: the same in every language.

    Raises:
        CorpusError: the file cannot be read or has another layout.
    """
    for place, where, paragraph in _paragraphs(path):
        for number, text in enumerate(_field(paragraph, "sentences", list, where)):
            yield Document(f"{place}-{number}", check_text(text, where))


def lareqa_topics(path: Path) -> Iterator[Topic]:
    """The questions; raises as :func:`lareqa_documents`."""
    for _, where, paragraph in _paragraphs(path):
        for question in _field(paragraph, "qas", list, where):
            text = check_text(_field(question, "question", str, where), where)
            yield Topic(check_id(_field(question, "id", str, where), where), text)


def lareqa_judgements(path: Path) -> Iterator[Judgement]:
    """Each question's sentence, the one where its first answer starts; raises as :func:`lareqa_documents`."""
    for place, where, paragraph in _paragraphs(path):
        breaks = [(int(start), int(end)) for start, end in _field(paragraph, "sentence_breaks", list, where)]
        for question in _field(paragraph, "qas", list, where):
            answers = _field(question, "answers", list, where)
            start = _field(answers[0] if answers else None, "answer_start", int, where)
            inside = [number for number, (first, end) in enumerate(breaks) if first <= start < end]
            if not inside:
                raise CorpusError(f"{where}: an answer starts at character {start}, outside all sentences {breaks}")
            yield Judgement(check_id(_field(question, "id", str, where), where), f"{place}-{inside[0]}", 1)


def _paragraphs(path: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    whole = parse_json("\n".join(read_lines(path)), str(path))
    for article, values in enumerate(_field(whole, "data", list, str(path))):
        for number, paragraph in enumerate(_field(values, "paragraphs", list, f"{path}: data[{article}]")):
            yield f"{article}-{number}", f"{path}: data[{article}].paragraphs[{number}]", paragraph


def afriqa_documents(path: Path) -> Iterator[Document]:
    """The passages of AfriQA's ``gold_span_passages`` file, ids the hash of their text: equal texts are one document.

    Raises:
        CorpusError: the file cannot be read or has another layout.
    """
    for where, values in _objects(path):
        if text := _passage(values, where):
            yield Document(_text_id(text), text)


def afriqa_topics(path: Path) -> Iterator[Topic]:
    """The questions in the African language, but for those that the file gives as NaN; raises as the documents do."""
    for where, values in _objects(path):
        if not isinstance(values, dict) or not isinstance(values.get("question_lang"), float):
            yield Topic(_question_id(values, where), check_text(_field(values, "question_lang", str, where), where))


def afriqa_translations(path: Path) -> Iterator[Topic]:
    """The questions as people translated them into English or French; raises as :func:`afriqa_documents`."""
    for where, values in _objects(path):
        text = check_text(_field(values, "question_translated", str, where), where)
        yield Topic(_question_id(values, where), text)


def afriqa_judgements(path: Path) -> Iterator[Judgement]:
    """Each question's passage; raises as :func:`afriqa_documents`."""
    for where, values in _objects(path):
        if text := _passage(values, where):
            yield Judgement(_question_id(values, where), _text_id(text), 1)


def _passage(values: object, where: str) -> str:
    """The gold passage; some questions have none, a null, and are left without relevant document."""
    if not isinstance(values, dict) or "context" not in values:
        raise CorpusError(f"{where}: no `context`; expected the published layout of the set")
    return check_text(values["context"], where)


def _text_id(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _question_id(values: object, where: str) -> str:
    return check_id(_field(values, "id", str, where), where)


def _objects(path: Path) -> Iterator[tuple[str, object]]:
    for number, line in enumerate(read_lines(path), start=1):
        if line.strip():
            yield f"{path}:{number}", parse_json(line, f"{path}:{number}")


def _field(value: object, name: str, kind: type, where: str) -> Any:
    found = value.get(name) if isinstance(value, dict) else None
    if not isinstance(found, kind):
        raise CorpusError(f"{where}: no {kind.__name__} `{name}`; expected the published layout of the set")
    return found
