"""Caption files of Flickr8k and Flickr30k in the three layouts in which they are passed on.

``Flickr8k.token.txt`` and ``results_20130124.token``: ``image.jpg#0<TAB>caption``; ``results.csv``: ``image_name|
comment_number| comment`` without quotes; ``captions.txt``: ``image,caption`` with quotes as in RFC 4180, captions of an
image numbered in the order of the file.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from optical_scale.corpora.captioned import Entry, image_id, read_image_list
from optical_scale.corpora.pictures import check_image_name
from optical_scale.corpora.reader import check_language, read_lines
from optical_scale.errors import CorpusError
from optical_scale.records import Caption

_TOKEN = re.compile(r"(?P<file>[^\t#]+)#(?P<number>[0-9]{1,9})\t(?P<text>.*)", re.DOTALL)
_PIPE_HEADER = re.compile(r"image_name *\| *comment_number *\| *comment *")
_PIPE = re.compile(r"(?P<file>[^|]+)\| *(?P<number>[0-9]{1,9}) *(?:\|| (?=[^|]))(?P<text>.*)", re.DOTALL)
"""The published file lacks the second bar on one line, where the number stands before the words."""
_CSV_HEADER = re.compile(r"image *, *caption")


class _Line(NamedTuple):
    file: str
    number: int
    text: str
    where: str


@dataclass(frozen=True)
class FlickrCaptionFiles:
    """One file of captions per language, in any mixture of the three layouts, recognised by their first line.

    Attributes:
        files: by BCP-47 tag; plain or compressed.
        splits: by name of the split, its image ids, one per line. Images in none are left out as ``not_in_split``.
            Empty: all images, without a split.

    Raises:
        CorpusError: a language is no tag, or there is none.
    """

    files: Mapping[str, Path]
    splits: Mapping[str, Path]

    def __post_init__(self) -> None:
        if not self.files:
            raise CorpusError("captions: no file; expected for example {en: results_20130124.token}")
        for language in self.files:
            check_language(language)

    @property
    def languages(self) -> tuple[str, ...]:
        """Tags in the given order."""
        return tuple(self.files)

    def entries(self) -> Iterator[Entry]:
        """Every image in the order of the first file that names it; errors as :meth:`CaptionLayout.entries`."""
        split_of = self._read_splits()
        captions: dict[str, list[Caption]] = {}
        places: dict[str, str] = {}
        for language, path in self.files.items():
            seen: dict[tuple[str, int], str] = {}
            for line in read_captions(path):
                if not line.file:
                    yield Entry("", (Caption(language, ""),), line.where, left_out="blank")
                    continue
                if (first := seen.setdefault((line.file, line.number), line.where)) != line.where:
                    raise CorpusError(f"{line.where}: caption {line.file}#{line.number} is also at {first}; remove one")
                places.setdefault(line.file, line.where)
                caption = Caption(language, line.text, id=f"{image_id(line.file)}#{line.number}")
                captions.setdefault(line.file, []).append(caption)
        self._check_splits(split_of, captions)
        for file, own in captions.items():
            split = split_of.get(image_id(file), "")
            left_out = "not_in_split" if self.splits and not split else ""
            yield Entry(file, tuple(own), places[file], split, left_out)

    def _read_splits(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for split, path in self.splits.items():
            for image, line in read_image_list(path).items():
                if (other := found.setdefault(image, split)) != split:
                    raise CorpusError(f"{path}:{line}: image {image} is also in the split {other!r}; remove it in one")
        return found

    def _check_splits(self, split_of: Mapping[str, str], captions: Mapping[str, object]) -> None:
        known = {image_id(file) for file in captions}
        if lacking := [image for image in split_of if image not in known]:
            raise CorpusError(
                f"{self.splits[split_of[lacking[0]]]}: {len(lacking):,} of {len(split_of):,} images in splits have no "
                f"caption; the first is {lacking[0]}. Give the caption files that belong to the lists"
            )


def read_captions(path: Path) -> Iterator[_Line]:
    """Captions with image and number; a blank line has no image.

    Raises:
        CorpusError: the file is unreadable or empty, of no known layout, or a line is malformed.
    """
    lines = read_lines(path)
    if (first := next(lines, None)) is None:
        raise CorpusError(f"{path}: the file is empty; expected captions")
    if _TOKEN.fullmatch(first):
        yield from _read_pattern(path, _TOKEN, "`image.jpg#0<TAB>caption`", start=0)
    elif _PIPE_HEADER.fullmatch(first):
        yield from _read_pattern(path, _PIPE, "`image.jpg| 0| caption`", start=1)
    elif _CSV_HEADER.fullmatch(first):
        yield from _read_csv(path)
    else:
        raise CorpusError(
            f"{path}:1: {first[:60]!r} starts no file of captions; expected `image.jpg#0<TAB>caption`, or a header "
            "`image_name| comment_number| comment` or `image,caption`"
        )


def _read_pattern(path: Path, pattern: re.Pattern[str], expected: str, start: int) -> Iterator[_Line]:
    for number, line in enumerate(read_lines(path), start=1):
        if number <= start:
            continue
        where = f"{path}:{number}"
        if not line.strip():
            yield _Line("", 0, "", where)
        elif match := pattern.fullmatch(line):
            file = check_image_name(match["file"].strip(), where)
            yield _Line(file, int(match["number"]), match["text"].strip(), where)
        else:
            raise CorpusError(f"{where}: {line[:60]!r} is no caption; expected {expected}")


def _read_csv(path: Path) -> Iterator[_Line]:
    numbers: Counter[str] = Counter()
    for where, row in _csv_rows(path):
        if not row:
            yield _Line("", 0, "", where)
            continue
        if len(row) != 2:
            raise CorpusError(f"{where}: {len(row)} fields; expected `image,caption`, quoted where it has a comma")
        file = check_image_name(row[0].strip(), where)
        yield _Line(file, numbers[file], row[1].strip(), where)
        numbers[file] += 1


def _csv_rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Rows after the header, each with file and line where it starts."""
    rows = csv.reader((f"{line}\n" for line in read_lines(path)), strict=True)
    start = 1
    try:
        for row in rows:
            if start > 1:
                yield f"{path}:{start}", row
            start = rows.line_num + 1
    except csv.Error as error:
        raise CorpusError(
            f"{path}:{start}: the row that starts here is malformed ({error}); expected fields as in RFC 4180"
        ) from None
