"""A retrieval collection as bitext for training: every topic with every relevant document."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from optical_scale.corpora.collections.folder import CollectionFolder
from optical_scale.corpora.reader import check_language
from optical_scale.records import TextPair


@dataclass(frozen=True)
class CollectionCorpus:
    """The document is the English side, the topic the other one.

    Attributes:
        name: corpus name; keys are ``{name}-{language}-{number:08d}``, counted in the order of topic and document ids.
        path: a collection folder.
        language: BCP-47 tag of the topics to take.

    Raises:
        CorpusError: ``language`` is no tag.
    """

    name: str
    path: Path
    language: str

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
        texts = self._folder.topics(self.language)
        position = {name: at for at, name in enumerate(self._folder.ids)}
        return [
            (texts[topic], position[document])
            for topic, judged in self._folder.qrels(self.language).items()
            for document, grade in judged.items()
            if grade > 0 and document in position
        ]

    def __iter__(self) -> Iterator[TextPair]:
        """Stream the pairs; raises as :meth:`count`."""
        prefix = f"{self.name}-{self.language}".lower()
        for number, (topic, position) in enumerate(self._relevant):
            yield TextPair(f"{prefix}-{number:08d}", self.language, self._folder.texts[position], topic, self.name)
