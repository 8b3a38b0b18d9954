"""Captions in files of lines beside a list of images: Multi30k (both tasks), XTD10 and whatever follows them.

Line n of every file describes the image on line n of the list, which may be repeated there as ``image.jpg#2``.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from optical_scale.corpora.captioned import Entry, image_id
from optical_scale.corpora.pictures import check_image_name
from optical_scale.corpora.reader import check_language, count_lines, read_lines
from optical_scale.errors import CorpusError
from optical_scale.records import Caption

_LISTED = re.compile(r"(?P<file>[^#]+)(?P<sentence>#[0-9]{1,12})?")


@dataclass(frozen=True)
class CaptionLineFiles:
    """Line-aligned captions.

    Sentence ids are ``{image id}#{k}``, k the file's position in its language, or the number that the list gives.

    Attributes:
        images: the list: one name per line.
        files: by BCP-47 tag, one or more files with as many lines as the list.
        split: name of the split that the files are.

    Raises:
        CorpusError: a language is no tag, or has no file.
    """

    images: Path
    files: Mapping[str, tuple[Path, ...]]
    split: str = ""

    def __post_init__(self) -> None:
        for language in self.files:
            check_language(language)
        if not self.files or not all(self.files.values()):
            raise CorpusError("captions: no file; expected for example {de: train.de, fr: train.fr}")

    @property
    def languages(self) -> tuple[str, ...]:
        """Tags in the given order."""
        return tuple(self.files)

    def entries(self) -> Iterator[Entry]:
        """Every image in the order of the list; errors as :meth:`CaptionLayout.entries`."""
        self._check_counts()
        columns = [(language, k, path) for language, paths in self.files.items() for k, path in enumerate(paths)]
        found: dict[str, list[Caption]] = {}
        places: dict[str, str] = {}
        numbered: dict[str, str] = {}
        rows = zip(read_lines(self.images), *(read_lines(path) for *_, path in columns), strict=True)
        for line, (listed, *texts) in enumerate(rows, start=1):
            where = f"{self.images}:{line}"
            match = _LISTED.fullmatch(listed.strip())
            if not match:
                raise CorpusError(f"{where}: {listed[:60]!r} is no image; expected for example `1000092795.jpg`")
            file = check_image_name(match["file"], where)
            name = file + (match["sentence"] or "")
            if (first := numbered.setdefault(name, where)) != where or (not match["sentence"] and file in found):
                raise CorpusError(f"{where}: image {name} is also at {first}; remove one of them in every file")
            places.setdefault(file, where)
            found.setdefault(file, []).extend(
                Caption(language, text.strip(), id=image_id(file) + (match["sentence"] or f"#{k}"))
                for (language, k, _), text in zip(columns, texts, strict=True)
            )
        for file, captions in found.items():
            yield Entry(file, tuple(captions), places[file], self.split)

    def _check_counts(self) -> None:
        listed = count_lines(self.images)
        if not listed:
            raise CorpusError(f"{self.images}: the list is empty; expected one image per line")
        for path in (path for paths in self.files.values() for path in paths):
            if (lines := count_lines(path)) != listed:
                raise CorpusError(
                    f"{path} has {lines:,} lines, but {self.images} lists {listed:,} images; line "
                    f"{min(lines, listed) + 1:,} has no partner. Give the list that belongs to the captions"
                )
