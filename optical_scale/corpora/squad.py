"""Question answering data translated as a whole, in the layout of SQuAD: XQuAD and its like.

Artetxe, Ruder and Yogatama, "On the Cross-lingual Transferability of Monolingual Representations", ACL 2020.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from optical_scale.corpora.jsonl import parse_json
from optical_scale.corpora.reader import check_language, check_text, read_lines, sanitize_key
from optical_scale.errors import CorpusError
from optical_scale.records import TextPair

Part = Literal["contexts", "questions"]


@dataclass(frozen=True)
class SquadCorpus:
    """Paragraphs joined by position, questions by id. Files of some megabytes, held in memory.

    Attributes:
        name: corpus name; keys are ``{name}-{language}-q-{id}`` and ``{name}-{language}-c-{article}-{paragraph}``.
        source_path: the English file, plain or compressed.
        target_path: the other one.
        language: BCP-47 tag of the other side.
        parts: what becomes pairs.

    Raises:
        CorpusError: ``language`` is no tag.
    """

    name: str
    source_path: Path
    target_path: Path
    language: str
    parts: Collection[Part] = ("contexts", "questions")

    def __post_init__(self) -> None:
        check_language(self.language)

    @property
    def languages(self) -> tuple[str, ...]:
        """The one language beside English."""
        return (self.language,)

    def count(self) -> int:
        """Number of paragraphs and questions asked for.

        Raises:
            CorpusError: a file is missing or malformed, or the two differ in paragraphs or questions.
        """
        return len(self._pairs)

    @cached_property
    def _pairs(self) -> dict[str, tuple[str, str]]:
        source, target = (read_texts(path, self.parts) for path in (self.source_path, self.target_path))
        if odd := sorted(source.keys() ^ target.keys()):
            holder, other = self.source_path, self.target_path
            if odd[0] in target:
                holder, other = other, holder
            raise CorpusError(
                f"{self.name}: {len(odd):,} texts have no partner; the first is {odd[0]}, which is in {holder} and not "
                f"in {other}. Expected translations of the same data, with the same ids and paragraphs"
            )
        return {key: (text, target[key]) for key, text in source.items()}

    def __iter__(self) -> Iterator[TextPair]:
        """Stream the pairs in the order of the English file; raises as :meth:`count`."""
        for key, (source, target) in self._pairs.items():
            yield TextPair(sanitize_key(f"{self.name}-{self.language}-{key}"), self.language, source, target, self.name)


def read_texts(path: Path, parts: Collection[Part]) -> dict[str, str]:
    """Texts of one file by ``q-{id}`` or ``c-{article}-{paragraph}``.

    Raises:
        CorpusError: the file is no JSON of this layout, repeats an id, or has no text.
    """
    texts: dict[str, str] = {}
    articles = _list(parse_json("\n".join(read_lines(path)), str(path)), "data", str(path))
    for article, values in enumerate(articles):
        for number, paragraph in enumerate(_list(values, "paragraphs", f"{path}: data[{article}]")):
            where = f"{path}: data[{article}].paragraphs[{number}]"
            questions = _list(paragraph, "qas", where)
            if "contexts" in parts:
                texts[f"c-{article}-{number}"] = check_text(paragraph.get("context"), f"{where}.context")
            if "questions" in parts:
                for question in questions:
                    if not isinstance(question, dict) or not isinstance(question.get("id"), str):
                        raise CorpusError(f"{where}: a question without an id; expected objects with `id`, `question`")
                    key = f"q-{question['id']}"
                    if key in texts:
                        raise CorpusError(f"{where}: the question id {question['id']!r} occurs twice; remove one")
                    texts[key] = check_text(question.get("question"), f"{where}: {key}")
    if not texts:
        raise CorpusError(f"{path}: no {' and no '.join(parts)}; expected the layout of SQuAD")
    return texts


def _list(value: object, field: str, where: str) -> list[Any]:
    found = value.get(field) if isinstance(value, dict) else None
    if not isinstance(found, list):
        raise CorpusError(f"{where}: no list `{field}`; expected the layout of SQuAD: data, paragraphs, qas")
    return found
