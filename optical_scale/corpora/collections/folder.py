"""The one form in which a retrieval collection is kept: a folder that is read by position without being loaded.

``documents.jsonl`` (``{"id", "text"}``, source order), ``ids.txt`` (sorted, one per line), ``offsets.npy`` (where the
documents of ``ids.txt`` start), ``topics/LANGUAGE.jsonl``, ``qrels/LANGUAGE.txt`` (TREC), and ``manifest.json``.

Positions count in the order of ids (by code point, as trec_eval compares them), so breaking ties by position is
breaking them by id, and the order of the source files changes no result.
"""

import hashlib
import json
import mmap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from optical_scale.corpora.collections.parts import Document, Judgement, Topic
from optical_scale.corpora.reader import check_language
from optical_scale.errors import CorpusError
from optical_scale.runtime.files import folder_appears, sha256, write_json

FORMAT_VERSION = 1
_MANIFEST = "manifest.json"
Qrels = Mapping[str, Mapping[str, int]]
"""Grades by topic and document."""


def write_collection(
    target: Path,
    name: str,
    documents: Iterable[Document],
    topics: Mapping[str, Iterable[Topic]],
    judgements: Mapping[str, Iterable[Judgement]],
) -> Mapping[str, int]:
    """Write a collection folder; it appears whole or not at all.

    What is wrong is an error where it would change results unseen, and counted where the standard tools accept it:

    - an id twice with *different* texts, or a judgement twice with different grades: error. Repeated: counted.
    - a blank document: kept (it is part of the collection, and found by nothing) and counted. A blank topic: error.
    - a judgement of an unknown document: kept and counted, since trec_eval counts such documents as not found; all
      relevant documents of a language unknown: error.
    - a topic without relevant document: left out and counted; a judgement of an unknown topic: left out and counted.
    - a language without topics after that: error.

    Args:
        target: folder to create.
        name: of the collection.
        documents: in any order; held on disk, but for their ids.
        topics: by BCP-47 tag.
        judgements: by the same tags.

    Returns:
        How often each counted thing happened, also in the manifest.

    Raises:
        CorpusError: as above, or ``target`` holds something.
    """
    counts: Counter[str] = Counter()
    try:
        with folder_appears(target) as folder:
            known = _write_documents(folder, documents, counts)
            sizes = {
                language: _write_language(
                    folder, check_language(language), queries, judgements[language], known, counts
                )
                for language, queries in topics.items()
            }
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            hashes = {str(path.relative_to(folder)): sha256(path) for path in files}
            manifest = {
                "format_version": FORMAT_VERSION,
                "kind": "collection",
                "name": name,
                "documents": len(known),
                "topics": sizes,
                "counted": dict(sorted(counts.items())),
                "files": hashes,
                "fingerprint": _fingerprint(hashes),
            }
            write_json(folder / _MANIFEST, manifest)
    except FileExistsError:
        raise CorpusError(f"output: {target} is not empty; choose another folder or delete it") from None
    return counts


def _fingerprint(hashes: Mapping[str, str]) -> str:
    lines = [f"{FORMAT_VERSION} collection", *(f"{name} {digest}" for name, digest in sorted(hashes.items()))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _write_documents(folder: Path, documents: Iterable[Document], counts: Counter[str]) -> dict[str, int]:
    """Write documents, ids and offsets; returns the offset of every id."""
    starts: dict[str, int] = {}
    digests: list[bytes] = []
    number: dict[str, int] = {}
    position = 0
    with (folder / "documents.jsonl").open("wb") as file:
        for document in documents:
            digest = hashlib.blake2b(document.text.encode(), digest_size=8).digest()
            if (earlier := number.setdefault(document.id, len(digests))) < len(digests):
                if digests[earlier] != digest:
                    raise CorpusError(
                        f"documents: the id {document.id} occurs twice with different texts, the second is "
                        f"{document.text[:60]!r}; judgements could mean either, so remove one"
                    )
                counts["document repeated"] += 1
                continue
            digests.append(digest)
            counts["blank document"] += not document.text.strip()
            line = json.dumps({"id": document.id, "text": document.text}, ensure_ascii=False).encode() + b"\n"
            file.write(line)
            starts[document.id] = position
            position += len(line)
    if not starts:
        raise CorpusError("documents: there are none; check the paths of the collection")
    counts += Counter()  # forget zeros
    ids = sorted(starts)
    (folder / "ids.txt").write_text("".join(f"{name}\n" for name in ids), encoding="utf-8", newline="\n")
    np.save(folder / "offsets.npy", np.array([*(starts[name] for name in ids), position], dtype=np.int64))
    return starts


def _write_language(
    folder: Path,
    language: str,
    topics: Iterable[Topic],
    judgements: Iterable[Judgement],
    known: Mapping[str, int],
    counts: Counter[str],
) -> int:
    """Write topics and judgements of one language; returns the number of topics."""
    texts: dict[str, str] = {}
    for topic in topics:
        if not topic.text.strip():
            raise CorpusError(f"topics of {language}: topic {topic.id} is blank; remove it or give it a text")
        if texts.setdefault(topic.id, topic.text) != topic.text:
            raise CorpusError(f"topics of {language}: the id {topic.id} occurs twice with different texts; remove one")
    grades = _merged(language, judgements, texts, counts)
    relevant = {topic: [name for name, grade in judged.items() if grade > 0] for topic, judged in grades.items()}
    kept = {name: text for name, text in texts.items() if relevant.get(name)}
    counts[f"{language}: topic without relevant document"] += len(texts) - len(kept)
    if not kept:
        raise CorpusError(
            f"topics of {language}: none of {len(texts)} topics has a relevant document; {len(grades)} are judged; "
            f"topic ids look like {next(iter(texts), '')!r}, judged ones like {next(iter(grades), '')!r}; "
            "do topics and judgements belong together?"
        )
    if not any(name in known for topic in kept for name in relevant[topic]):
        raise CorpusError(
            f"judgements of {language}: no relevant document is in the collection, for example "
            f"{relevant[next(iter(kept))][0]!r}; it has ids like {next(iter(known))!r}. Is it another collection?"
        )
    unknown = sum(name not in known for topic in kept for name in grades[topic])
    counts[f"{language}: judgement of unknown document"] += unknown
    for sub in ("topics", "qrels"):
        (folder / sub).mkdir(exist_ok=True)
    with (folder / "topics" / f"{language}.jsonl").open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(
            f"{json.dumps({'id': name, 'text': kept[name]}, ensure_ascii=False)}\n" for name in sorted(kept)
        )
    with (folder / "qrels" / f"{language}.txt").open("w", encoding="utf-8", newline="\n") as file:
        for query in sorted(kept):
            file.writelines(f"{query} 0 {name} {grade}\n" for name, grade in sorted(grades[query].items()))
    for reason in [reason for reason, number in counts.items() if not number]:
        del counts[reason]
    return len(kept)


def _merged(
    language: str, judgements: Iterable[Judgement], texts: Mapping[str, str], counts: Counter[str]
) -> dict[str, dict[str, int]]:
    grades: dict[str, dict[str, int]] = {}
    for judged in judgements:
        if judged.topic not in texts:
            counts[f"{language}: judgement of unknown topic"] += 1
            continue
        of_topic = grades.setdefault(judged.topic, {})
        if judged.document in of_topic:
            if of_topic[judged.document] != judged.grade:
                raise CorpusError(
                    f"judgements of {language}: topic {judged.topic} and document {judged.document} have the grades "
                    f"{of_topic[judged.document]} and {judged.grade}; remove one"
                )
            counts[f"{language}: judgement repeated"] += 1
        of_topic[judged.document] = judged.grade
    return grades


class DocumentTexts(Sequence[str]):
    """The texts of a collection in the order of ids, read from the disk on demand.

    Args:
        path: ``documents.jsonl``.
        offsets: where each document starts, int64 (K,).
    """

    def __init__(self, path: Path, offsets: NDArray[np.int64]) -> None:
        self._offsets = offsets
        with path.open("rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def __len__(self) -> int:
        return len(self._offsets)

    @overload
    def __getitem__(self, position: int) -> str: ...
    @overload
    def __getitem__(self, position: slice) -> list[str]: ...
    def __getitem__(self, position: int | slice) -> str | list[str]:
        """Text at a position of the id order."""
        if isinstance(position, slice):
            return [self[at] for at in range(*position.indices(len(self)))]
        start = int(self._offsets[position])
        text: str = json.loads(self._bytes[start : self._bytes.find(b"\n", start)])["text"]
        return text


class CollectionFolder:
    """A folder that :func:`write_collection` wrote.

    Args:
        path: the folder.

    Raises:
        CorpusError: it is no such folder, or of another version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.manifest: dict[str, Any] = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
            version = self.manifest["kind"], self.manifest["format_version"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CorpusError(
                f"{path / _MANIFEST}: cannot be read ({error!r:.120}), so {path} is no retrieval collection; "
                "make one with `optical-scale convert`"
            ) from None
        if version != ("collection", FORMAT_VERSION):
            raise CorpusError(f"{path}: {version[0]} of version {version[1]}; expected a collection, {FORMAT_VERSION}")
        if _fingerprint(self.manifest["files"]) != self.fingerprint:
            raise CorpusError(f"{path}: the manifest was edited or damaged; convert the collection again")

    @property
    def fingerprint(self) -> str:
        """Equal for equal content."""
        return str(self.manifest["fingerprint"])

    @property
    def languages(self) -> tuple[str, ...]:
        """Tags of the topics, sorted."""
        return tuple(sorted(self.manifest["topics"]))

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Document ids by position."""
        return tuple((self.path / "ids.txt").read_text(encoding="utf-8").split("\n")[:-1])

    @cached_property
    def texts(self) -> DocumentTexts:
        """Document texts by position."""
        return DocumentTexts(self.path / "documents.jsonl", np.load(self.path / "offsets.npy")[:-1])

    def topics(self, language: str) -> dict[str, str]:
        """Texts of the topics by id, sorted by id.

        Raises:
            CorpusError: the collection has no topics in this language.
        """
        if language not in self.manifest["topics"]:
            raise CorpusError(f"{self.path}: no topics in {language}; it has {', '.join(self.languages)}")
        lines = _lines(self.path / "topics" / f"{language}.jsonl")
        return {fields["id"]: fields["text"] for fields in map(json.loads, lines)}

    def qrels(self, language: str) -> Qrels:
        """Grades by topic and document id."""
        grades: dict[str, dict[str, int]] = {}
        for line in _lines(self.path / "qrels" / f"{language}.txt"):
            topic, _, document, grade = line.split()
            grades.setdefault(topic, {})[document] = int(grade)
        return grades


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8", newline="\n") as file:
        for line in file:
            yield line.removesuffix("\n")
