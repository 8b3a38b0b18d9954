"""A retrieval collection as bitext for training: every topic with every relevant document, and others."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from optical_scale.corpora.collections.candidates import Choice, Mining, choose
from optical_scale.corpora.collections.folder import CollectionFolder
from optical_scale.corpora.lists import left_out
from optical_scale.corpora.reader import PART, LeftOut, check_language
from optical_scale.records import TextPair


@dataclass(frozen=True)
class CollectionCorpus:
    """The document is the English side, the topic the other one.

    Attributes:
        name: corpus name; keys are ``{name}-{language}-{number:08d}``, counted in the order of topic and document ids.
        path: a collection folder.
        language: BCP-47 tag of the topics to take.
        mining: where the negatives of a pair come from; None for pairs alone.

    Raises:
        CorpusError: ``language`` is no tag.
    """

    name: str
    path: Path
    language: str
    mining: Mining | None = None

    def __post_init__(self) -> None:
        check_language(self.language)

    @property
    def languages(self) -> tuple[str, ...]:
        """The one language of the topics."""
        return (self.language,)

    def count(self) -> int:
        """Number of relevant documents over all topics that the collection has.

        Raises:
            CorpusError: the folder is no collection, or has no topics in the language.
        """
        return len(self._relevant)

    @cached_property
    def _folder(self) -> CollectionFolder:
        return CollectionFolder(self.path)

    @cached_property
    def _relevant(self) -> list[tuple[str, int]]:
        """Topics, and positions of their documents."""
        return [
            (topic, position)
            for topic, judged in self._folder.qrels(self.language).items()
            for document, grade in judged.items()
            if grade > 0 and (position := self._position(document)) is not None
        ]

    def _position(self, document: str) -> int | None:
        ids = self._folder.ids  # sorted, so that millions of them need no dictionary
        at = bisect_left(ids, document)
        return at if at < len(ids) and ids[at] == document else None

    def __iter__(self) -> Iterator[TextPair | LeftOut]:
        """Stream the pairs.

        Raises:
            CorpusError: as :meth:`count`, or the candidates cannot be used.
        """
        prefix = f"{self.name}-{self.language}".lower()
        texts, topics = self._folder.texts, self._folder.topics(self.language)
        answers: defaultdict[str, list[int]] = defaultdict(list)
        for topic, position in self._relevant:
            answers[topic].append(position)
        chosen: dict[str, dict[int, Choice]] = {}
        if self.mining is not None:
            chosen, counts = choose(self.mining, self._position, answers)
            yield from (LeftOut(self.name, self.language, PART + what, number) for what, number in counts.items())
        for number, (topic, position) in enumerate(self._relevant):
            pair = TextPair(f"{prefix}-{number:08d}", self.language, texts[position], topics[topic], self.name)
            choice = chosen.get(topic, {}).get(position)
            if choice is None:
                yield pair
                continue
            known = {texts[at].strip() for at in answers[topic]}
            found = [texts[at].strip() for at in choice.positions]
            kept = [at for at, text in enumerate(found) if text and text not in known]
            yield from left_out(self.name, self.language, found.count(""), len(found) - len(kept))
            scores = (choice.scores[0], *(choice.scores[1 + at] for at in kept)) if choice.scores else ()
            yield replace(pair, negatives=tuple(found[at] for at in kept), scores=scores)
