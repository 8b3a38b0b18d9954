"""Collections as tables: MS MARCO, mMARCO, WikiCLIR and AfriCLIRMatrix, judgements of TREC and BEIR, BEIR's JSON lines.

Thakur et al., "BEIR", NeurIPS Datasets 2021 (arXiv 2104.08663); Bonifacio et al., "mMARCO", arXiv 2108.13897.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optical_scale.corpora.collections.parts import Document, Judgement, Topic, check_id
from optical_scale.corpora.jsonl import parse_json
from optical_scale.corpora.reader import check_text, read_lines
from optical_scale.errors import CorpusError


def tsv_documents(path: Path) -> Iterator[Document]:
    """``id<TAB>text`` or ``id<TAB>title<TAB>text`` on every line; the title goes before the text.

    Raises:
        CorpusError: the file cannot be read, or a line has one column or an unusable id.
    """
    for where, row in _rows(path, "id<TAB>text"):
        yield Document(check_id(row[0], where), " ".join(part.strip() for part in row[1:] if part.strip()))


def tsv_topics(path: Path) -> Iterator[Topic]:
    """``id<TAB>text`` on every line; raises as :func:`tsv_documents`."""
    for where, row in _rows(path, "id<TAB>text"):
        yield Topic(check_id(row[0], where), " ".join(row[1:]).strip())


def _rows(path: Path, expected: str) -> Iterator[tuple[str, list[str]]]:
    for number, line in enumerate(read_lines(path), start=1):
        if line.strip():
            row = line.split("\t")
            if len(row) < 2:
                raise CorpusError(f"{path}:{number}: one column: {line[:60]!r}; expected {expected}")
            yield f"{path}:{number}", row


def jsonl_documents(path: Path) -> Iterator[Document]:
    """BEIR's ``corpus.jsonl``: objects with ``_id``, ``text`` and perhaps ``title``, which goes before the text.

    Raises:
        CorpusError: the file cannot be read, or a line is no such object.
    """
    for where, fields in _objects(path):
        title, text = check_text(fields.get("title"), f"{where}: title"), check_text(fields["text"], f"{where}: text")
        yield Document(_id(fields, where), f"{title} {text}".strip())


def jsonl_topics(path: Path) -> Iterator[Topic]:
    """BEIR's ``queries.jsonl``: objects with ``_id`` and ``text``; raises as :func:`jsonl_documents`."""
    for where, fields in _objects(path):
        yield Topic(_id(fields, where), check_text(fields["text"], f"{where}: text"))


def _objects(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(read_lines(path), start=1):
        if line.strip():
            where = f"{path}:{number}"
            fields = parse_json(line, where)
            if not isinstance(fields, dict) or not {"_id", "text"} <= fields.keys():
                raise CorpusError(f"{where}: {line[:60]!r}; expected a JSON object with `_id` and `text`, as in BEIR")
            yield where, fields


def _id(fields: dict[str, Any], where: str) -> str:
    return check_id(str(fields["_id"]), where)


def judgements(path: Path) -> Iterator[Judgement]:
    """Judgements of TREC (``topic iteration document grade``) or BEIR (``topic document grade`` below a header).

    The number of columns on the first line decides, and all others must agree.

    Raises:
        CorpusError: the file cannot be read, a line has another number of columns, or a grade is no integer.
    """
    columns = 0
    for number, line in enumerate(read_lines(path), start=1):
        row = line.split()
        if not row:
            continue
        if not columns:
            columns = len(row)
            if columns == 3 and not _is_grade(row[2]):  # BEIR's header: query-id corpus-id score
                continue
        if len(row) != columns or columns not in (3, 4) or not _is_grade(row[-1]):
            raise CorpusError(
                f"{path}:{number}: {line[:80]!r}; expected `topic iteration document grade` (TREC) or "
                "`topic document grade` (BEIR) on every line, the grade an integer"
            )
        yield Judgement(row[0], row[-2], int(row[-1]))


def _is_grade(text: str) -> bool:
    return text.removeprefix("-").isdecimal() and len(text) < 10
