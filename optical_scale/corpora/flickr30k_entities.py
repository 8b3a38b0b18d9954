"""Flickr30k-Entities: images, five captions each, phrases of the captions linked to boxes of the image.

Plummer et al., "Flickr30k Entities: Collecting Region-to-Phrase Correspondences for Richer Image-to-Sentence Models",
ICCV 2015. Folder layout as published: ``Sentences/{id}.txt`` and ``Annotations/{id}.xml``, images beside them.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

from optical_scale.corpora.captioned import Faults, read_image_list
from optical_scale.corpora.entity_boxes import Annotation, read_annotation
from optical_scale.corpora.pictures import SUFFIXES, UNCHANGED, PictureRule, check_image_name, read_picture
from optical_scale.corpora.reader import PART, Deferred, LeftOut, check_language, read_all, read_lines, sanitize_key
from optical_scale.errors import CorpusError, ImageError
from optical_scale.records import Caption, CaptionedImage, Phrase, Record

_PHRASE = re.compile(r"\[/EN#(?P<entity>[0-9]+)/(?P<kind>[^\s\[\]]+) (?P<text>[^\[\]]+)\]")
_MARKER = re.compile(r"\[/?EN#|\[/[A-Z]{2}#")


@dataclass(frozen=True)
class Flickr30kEntitiesCorpus:
    """Images of one split with captions in one or more languages, phrases and boxes.

    Attributes:
        name: corpus name; keys are ``{name}-{image id}``.
        folder: holds ``Sentences``, ``Annotations`` and, unless ``images`` says otherwise, ``images``.
        split_file: one image id per line, with or without ``.jpg``.
        languages: tags; ``en`` reads ``Sentences/{id}.txt``, another reads ``Sentences_{tag}/{id}.txt`` of the same
            syntax, whose entity ids mean the same boxes.
        images: folder of ``{id}.jpg`` or another suffix, in any resolution of the annotated aspect ratio.
        rule: how images are stored.
        faults: ``error`` stops at the first image that is missing or unusable, ``drop`` leaves it out and counts it.

    Samples carry the image id, the split file's name without suffix, and sentence ids ``{image id}#{n}``, n from 0.
    Left out and counted: objects without a box (``part:scene_without_box``, ``part:object_without_box``). Kept and
    counted: boxes cut at the border (``part:box_clipped``), phrases whose entity has no box in the file
    (``part:phrase_without_box``) or is not named there at all (``part:phrase_not_annotated``). Phrases of entity 0 mean
    nothing visible and are not counted.

    Raises:
        CorpusError: a language is no tag, or none is given.
    """

    name: str
    folder: Path
    split_file: Path
    languages: tuple[str, ...] = ("en",)
    images: Path | None = None
    rule: PictureRule = UNCHANGED
    faults: Faults = "error"

    def __post_init__(self) -> None:
        if not self.languages:
            raise CorpusError(f"{self.name}: no caption language; expected for example `en`")
        for language in self.languages:
            check_language(language)

    def count(self) -> int:
        """Number of images of the split.

        Raises:
            CorpusError: the split is empty or repeats an id, or an image, a sentence or an annotation file is missing.
        """
        return len(self._image_paths)

    @cached_property
    def _image_paths(self) -> dict[str, Path | None]:
        """Path by image id, in split order, after checking that every file exists; None only where that is allowed."""
        lines = read_image_list(self.split_file)
        ids = [check_image_name(image_id, f"{self.split_file}:{line}") for image_id, line in lines.items()]
        folder = self.images or self.folder / "images"
        if not folder.is_dir():
            raise CorpusError(f"{folder}: no such folder; expected the images {{id}}.jpg or {{id}}.png")
        by_id = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES}
        if self.faults == "error":
            _check_all_there(self.split_file, ids, folder / "{id}.jpg", set(by_id))
        for language in self.languages:
            texts = self._sentences(language)
            _check_all_there(self.split_file, ids, texts / "{id}.txt", {path.stem for path in texts.glob("*.txt")})
        boxes = self.folder / "Annotations"
        _check_all_there(self.split_file, ids, boxes / "{id}.xml", {path.stem for path in boxes.glob("*.xml")})
        return {image_id: by_id.get(image_id) for image_id in ids}

    def _sentences(self, language: str) -> Path:
        return self.folder / ("Sentences" if language == "en" else f"Sentences_{language}")

    def __iter__(self) -> Iterator[Record | LeftOut]:
        """Stream the images in the order of the split file.

        Raises:
            CorpusError: as :meth:`count`, before the first image; or a file is malformed, with file and line; or an
                image is unusable, unless faults are dropped.
        """
        return read_all(self.deferred())

    def deferred(self) -> Iterator[Deferred]:
        """One part for each image.

        Raises:
            CorpusError: as :meth:`count`.
        """
        self.count()
        light = replace(self)  # without the cached paths, which would travel with every image
        for image_id, path in self._image_paths.items():
            yield Deferred(image_id, partial(light._one, image_id, path))

    def _one(self, image_id: str, path: Path | None) -> Iterator[CaptionedImage | LeftOut]:
        captions = tuple(
            caption
            for language in self.languages
            for caption in read_captions(self._sentences(language) / f"{image_id}.txt", language)
        )
        try:
            if path is None:
                raise ImageError(f"{self.split_file}: image {image_id} has no file", "missing_image")
            picture = read_picture(path, self.rule)
        except ImageError as error:
            if self.faults == "error":
                raise
            yield LeftOut(self.name, "", error.reason)
            yield from (LeftOut(self.name, caption.language, error.reason) for caption in captions)
            return
        size = picture.width, picture.height
        annotation = read_annotation(self.folder / "Annotations" / f"{image_id}.xml", size)
        yield CaptionedImage(
            key=sanitize_key(f"{self.name}-{image_id}"),
            image=picture.content,
            extension=picture.extension,
            width=picture.width,
            height=picture.height,
            captions=captions,
            regions=annotation.regions,
            corpus=self.name,
            image_id=image_id,
            split=self.split_file.stem,
        )
        yield from self._parts(annotation, captions)

    def _parts(self, annotation: Annotation, captions: tuple[Caption, ...]) -> Iterator[LeftOut]:
        """What of one image was cut, or leads nowhere."""
        counts = {
            ("", "scene_without_box"): annotation.scenes,
            ("", "object_without_box"): annotation.unseen,
            ("", "box_clipped"): annotation.clipped,
        }
        for caption in captions:
            for phrase in caption.phrases:
                if phrase.entity not in annotation.regions and phrase.entity != "0":
                    known = phrase.entity in annotation.boxless
                    reason = "phrase_without_box" if known else "phrase_not_annotated"
                    counts[caption.language, reason] = counts.get((caption.language, reason), 0) + 1
        for (language, reason), number in counts.items():
            if number:
                yield LeftOut(self.name, language, PART + reason, number)


def _check_all_there(split: Path, ids: list[str], pattern: Path, present: set[str]) -> None:
    missing = [image_id for image_id in ids if image_id not in present]
    if missing:
        raise CorpusError(
            f"{split} lists {len(ids):,} images, but {len(missing):,} have no file {pattern}; the first is "
            f"{missing[0]}. Add the files, or name a split file that lists only what is there"
        )


def read_captions(path: Path, language: str) -> tuple[Caption, ...]:
    """Read captions with phrases marked as ``[/EN#id/type words]``; a type may have parts, as ``people/animals``.

    Raises:
        CorpusError: a marker is malformed (with file and line), or the file has no caption.
    """
    lines = enumerate(read_lines(path), start=1)
    captions = tuple(
        _parse_caption(line.strip(), language, f"{path}:{number}", f"{path.stem}#{number - 1}")
        for number, line in lines
        if line.strip()
    )
    if not captions:
        raise CorpusError(f"{path}: the file has no caption; expected one per line")
    return captions


def _parse_caption(line: str, language: str, where: str, sentence: str) -> Caption:
    text, phrases, position = "", [], 0
    for match in _PHRASE.finditer(line):
        text += line[position : match.start()]
        phrases.append(Phrase(match["entity"], match["kind"], len(text), len(text) + len(match["text"])))
        text += match["text"]
        position = match.end()
    text += line[position:]
    if marker := _MARKER.search(text):
        raise CorpusError(
            f"{where}: malformed phrase at {text[marker.start() : marker.start() + 40]!r}; "
            "expected `[/EN#id/type words]` with a closing bracket and no bracket inside"
        )
    return Caption(language, text, tuple(phrases), sentence)
