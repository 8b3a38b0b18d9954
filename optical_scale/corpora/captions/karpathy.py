"""Karpathy's JSON files, with the splits on which image-text retrieval is reported.

``dataset_flickr8k.json``, ``dataset_flickr30k.json``, ``dataset_coco.json`` (Karpathy and Fei-Fei, CVPR 2015).
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optical_scale.corpora.captioned import Entry
from optical_scale.corpora.pictures import check_image_name
from optical_scale.corpora.reader import check_language, check_text, open_bytes
from optical_scale.errors import CorpusError
from optical_scale.records import Caption


@dataclass(frozen=True)
class KarpathyCaptions:
    """Images with their raw sentences; a sentence keeps its ``sentid``.

    Attributes:
        path: the file, plain or compressed.
        splits: names of the wanted splits, as ``("train", "restval")``; others are left out as ``not_in_split``.
            Empty: all.
        language: BCP-47 tag of the sentences.

    Raises:
        CorpusError: the language is no tag.
    """

    path: Path
    splits: tuple[str, ...] = ()
    language: str = "en"

    def __post_init__(self) -> None:
        check_language(self.language)

    @property
    def languages(self) -> tuple[str, ...]:
        """The one language."""
        return (self.language,)

    def entries(self) -> Iterator[Entry]:
        """Every image in file order; errors as :meth:`CaptionLayout.entries`, or no image is in a wanted split."""
        seen: dict[str, str] = {}
        found: dict[str, None] = {}
        for position, image in enumerate(self._images()):
            where = f"{self.path}: image {position}"
            entry = self._entry(image, where)
            found.setdefault(entry.split)
            for caption in entry.captions:
                if (first := seen.setdefault(caption.id, where)) != where:
                    raise CorpusError(f"{where}: sentid {caption.id} is also that of {first}; remove one")
            yield entry
        if absent := [split for split in self.splits if split not in found]:
            raise CorpusError(
                f"{self.path}: no image is in the split {absent[0]!r}; the file has {', '.join(sorted(found))}"
            )

    def _images(self) -> list[Any]:
        with open_bytes(self.path) as file:
            content = file.read()
        try:
            # The words of each sentence once more, as a list, would take most of the memory.
            whole = json.loads(content, object_hook=_without_tokens)
        except (ValueError, RecursionError) as error:
            raise CorpusError(f"{self.path}: not JSON ({error}); fetch the file again") from None
        images = whole.get("images") if isinstance(whole, dict) else None
        if not isinstance(images, list) or not images:
            raise CorpusError(f'{self.path}: no list "images"; expected a file such as dataset_flickr30k.json')
        return images

    def _entry(self, image: object, where: str) -> Entry:
        sentences = _field(image, "sentences", list, where)
        name = _field(image, "filename", str, where)
        if isinstance(image, dict) and image.get("filepath"):
            name = f"{_field(image, 'filepath', str, where)}/{name}"
        split = check_text(_field(image, "split", str, where), f"{where}: split")
        captions = []
        for number, sentence in enumerate(sentences):
            place = f"{where}, sentence {number}"
            text = check_text(_field(sentence, "raw", str, place), place)
            captions.append(Caption(self.language, text, id=str(_field(sentence, "sentid", int, place))))
        left_out = "not_in_split" if self.splits and split not in self.splits else ""
        return Entry(check_image_name(name, where), tuple(captions), where, split, left_out)


def _without_tokens(value: dict[str, Any]) -> dict[str, Any]:
    value.pop("tokens", None)
    return value


def _field(value: object, name: str, kind: type, where: str) -> Any:
    found = value.get(name) if isinstance(value, dict) else None
    if not isinstance(found, kind):
        raise CorpusError(f"{where}: {name!r} is {found!r:.60}; expected {kind.__name__} as in Karpathy's files")
    return found
