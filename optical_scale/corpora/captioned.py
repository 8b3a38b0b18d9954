"""Captions joined to image files: what all layouts of image-caption corpora share.

A layout reads text files only and says which captions belong to which image; :class:`CaptionedImagesCorpus` finds,
checks and prepares the images.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import Literal, Protocol

from optical_scale.corpora.pictures import SUFFIXES, UNCHANGED, PictureRule, find_image, read_picture
from optical_scale.corpora.reader import Deferred, LeftOut, read_all, read_lines, sanitize_key
from optical_scale.errors import CorpusError, ImageError
from optical_scale.records import Caption, CaptionedImage, Record

Faults = Literal["error", "drop"]
"""What becomes of missing and unusable images."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One image of a layout.

    Attributes:
        file: its name, checked to be safe; empty for lines that name none.
        captions: in all languages; their ids are unique within a language.
        where: file and line, for messages.
        split: as in :class:`CaptionedImage`.
        left_out: why it is not wanted; empty if it is.
    """

    file: str
    captions: tuple[Caption, ...]
    where: str
    split: str = ""
    left_out: str = ""

    @property
    def image_id(self) -> str:
        """The name without folder and suffix."""
        return image_id(self.file)


class CaptionLayout(Protocol):
    """Files that say which captions belong to which image."""

    @property
    def languages(self) -> tuple[str, ...]:
        """BCP-47 tags of the captions."""

    def entries(self) -> Iterator[Entry]:
        """Every image, in the order of the files.

        Raises:
            CorpusError: a file is missing, malformed, or fits no other; with file and line.
        """


@dataclass(frozen=True)
class _NoEntries:
    """The layout of copies of a corpus that read single entries."""

    languages: tuple[str, ...]

    def entries(self) -> Iterator[Entry]:
        return iter(())


@dataclass(frozen=True)
class CaptionedImagesCorpus:
    """The images of a layout that are wanted, with their captions.

    Attributes:
        name: corpus name; keys are ``{name}-{image id}``.
        layout: which captions belong to which image.
        images: folder of the images.
        rule: how images are stored.
        faults: ``error`` stops at the first image that is missing or unusable, ``drop`` leaves it out and counts it.
    """

    name: str
    layout: CaptionLayout
    images: Path
    rule: PictureRule = UNCHANGED
    faults: Faults = "error"

    @property
    def languages(self) -> tuple[str, ...]:
        """Tags of the captions."""
        return self.layout.languages

    def count(self) -> int:
        """Number of images that the layout names.

        Raises:
            CorpusError: as :meth:`CaptionLayout.entries`; two images would get one key; or, unless faults are dropped,
                an image is missing.
        """
        return sum(bool(entry.file) for entry in self._entries)

    @cached_property
    def _entries(self) -> tuple[Entry, ...]:
        if not self.images.is_dir():
            raise CorpusError(f"{self.images}: no such folder; expected the images of the corpus {self.name}")
        entries = tuple(self.layout.entries())
        seen: dict[str, Entry] = {}
        for entry in entries:
            if entry.file and (first := seen.setdefault(self._key(entry), entry)) is not entry:
                raise CorpusError(
                    f"{entry.where}: image {entry.file} would get the key {self._key(entry)}, as {first.file} at "
                    f"{first.where}; remove one, or rename it"
                )
        if self.faults == "error":
            wanted = [entry for entry in seen.values() if not entry.left_out]
            missing = [entry for entry in wanted if find_image(self.images, entry.file) is None]
            if missing:
                raise CorpusError(
                    f"{missing[0].where}: image {missing[0].file} is not in {self.images}; {len(missing):,} of "
                    f"{len(wanted):,} images are missing. Add them, or set `pictures: {{faults: drop}}` to leave them "
                    "out and count them"
                )
        return entries

    def _key(self, entry: Entry) -> str:
        return sanitize_key(f"{self.name}-{entry.image_id}")

    def __iter__(self) -> Iterator[Record | LeftOut]:
        """Stream the images, and what is left out.

        Raises:
            CorpusError: as :meth:`count`; or an image is unusable, unless faults are dropped.
        """
        return read_all(self.deferred())

    def deferred(self) -> Iterator[Deferred]:
        """One part for each image.

        Raises:
            CorpusError: as :meth:`count`.
        """
        self.count()
        light = replace(self, layout=_NoEntries(self.languages))  # the entries would travel with every image
        for entry in self._entries:
            yield Deferred(repr(entry), partial(light._one, entry))

    def _one(self, entry: Entry) -> Iterator[CaptionedImage | LeftOut]:
        if entry.left_out:
            yield from self._leave_out(entry, entry.left_out)
            return
        captions = tuple(caption for caption in entry.captions if caption.text.strip())
        if len(captions) < len(entry.captions):
            blank = tuple(caption for caption in entry.captions if not caption.text.strip())
            yield from self._count_captions(blank, "blank")
        yield from self._join(replace(entry, captions=captions))

    def _join(self, entry: Entry) -> Iterator[CaptionedImage | LeftOut]:
        if not entry.captions:
            yield from self._leave_out(entry, "no_caption")
            return
        try:
            if (path := find_image(self.images, entry.file)) is None:
                raise ImageError(f"{entry.where}: image {entry.file} is not in {self.images}", "missing_image")
            picture = read_picture(path, self.rule)
        except ImageError as error:
            if self.faults == "error":
                raise
            yield from self._leave_out(entry, error.reason)
            return
        yield CaptionedImage(
            key=self._key(entry),
            image=picture.content,
            extension=picture.extension,
            width=picture.width,
            height=picture.height,
            captions=entry.captions,
            corpus=self.name,
            image_id=entry.image_id,
            split=entry.split,
        )

    def _leave_out(self, entry: Entry, reason: str) -> Iterator[LeftOut]:
        if entry.file:
            yield LeftOut(self.name, "", reason)
        yield from self._count_captions(entry.captions, reason)

    def _count_captions(self, captions: tuple[Caption, ...], reason: str) -> Iterator[LeftOut]:
        for language, number in Counter(caption.language for caption in captions).items():
            yield LeftOut(self.name, language, reason, number)


def image_id(file: str) -> str:
    """The name of an image without folder and suffix."""
    path = PurePosixPath(file)
    return path.stem if path.suffix.lower() in SUFFIXES else path.name


def read_image_list(path: Path) -> dict[str, int]:
    """Image ids, one per line, with or without suffix -> their lines; blank lines are none.

    Raises:
        CorpusError: the file is unreadable or empty, or repeats an id.
    """
    lines: dict[str, int] = {}
    for number, line in enumerate(read_lines(path), start=1):
        if not (found := image_id(line.strip())):
            continue
        if (first := lines.setdefault(found, number)) != number:
            raise CorpusError(f"{path}:{number}: image {found} is also on line {first}; remove one")
    if not lines:
        raise CorpusError(f"{path}: the file is empty; expected one image id per line")
    return lines
