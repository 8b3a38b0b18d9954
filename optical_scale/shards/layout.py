"""How samples of webdataset tars that another program wrote become records; nothing of them is rewritten."""

import io
import json
import re
import warnings
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal

from PIL import Image

from optical_scale.records import Caption, CaptionedImage, Record, TextPair
from optical_scale.shards.codec import KEY
from optical_scale.shards.spans import members_of

_EXTENSIONS = {"JPEG": "jpg", "PNG": "png"}
_IMAGES = ("jpg", "jpeg", "png")
_MAX_PIXELS = 64_000_000  # the limit of convert and of training
_LANGUAGE = re.compile(r"[A-Za-z0-9]{1,8}(-[A-Za-z0-9]{1,8})*")
_STATUS = re.compile(r"[a-z_]{1,40}")


class UnusableSampleError(ValueError):
    """A sample that gives no record.

    Attributes:
        reason: under which word it is counted.
        harmless: True where the sample is as its writer meant it, with nothing to read: a blank text, an image that
            could not be downloaded.
    """

    def __init__(self, message: str, reason: str, *, harmless: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.harmless = harmless


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the fields of a record lie in a sample.

    A place is the extension of a member with text (``txt``, ``en.txt``), or ``json.`` and the path of a field in the
    member ``json`` (``json.caption``, ``json.translation.en``). Images are found by themselves.

    Attributes:
        corpus: name of the corpus.
        language: BCP-47 tag of all targets or captions; None if samples say it.
        language_at: place of that tag; None if it is given.
        caption: place of the caption, or of a list of captions; None for bitext.
        source: place of the English side; None for images.
        target: place of the other side; None for images.
        faults: ``error``, or ``drop`` to leave out and count samples of which a part is missing or damaged.

    Raises:
        ValueError: places are missing or contradict each other.
    """

    corpus: str
    language: str | None = None
    language_at: str | None = None
    caption: str | None = None
    source: str | None = None
    target: str | None = None
    faults: Literal["error", "drop"] = "error"

    def __post_init__(self) -> None:
        """Refuse what cannot be read."""
        if (self.language is None) == (self.language_at is None):
            raise ValueError("expected a language, or the place where samples say it")
        if self.language is not None and not _LANGUAGE.fullmatch(self.language):
            raise ValueError(f"{self.language!r} is no BCP-47 tag")
        if (self.source is None) != (self.target is None) or (self.caption is None) == (self.source is None):
            raise ValueError("expected the place of the caption, or those of both sides of a pair")
        if self.faults not in ("error", "drop"):
            raise ValueError(f"faults is {self.faults!r}; expected error or drop")

    @property
    def kind(self) -> Literal["bitext", "images"]:
        """Of the records."""
        return "images" if self.source is None else "bitext"

    def decode(self, sample: bytes, shard: str) -> Record:
        """The record of a sample.

        Args:
            sample: its tar members.
            shard: file name of the tar, which becomes part of the key.

        Raises:
            ValueError: the bytes are no sample; as :class:`UnusableSampleError`, they are one without a usable record.
        """
        key, members = members_of(sample)
        fields = _Fields(members)
        name = safe_key(shard, key)
        if self.source is not None and self.target is not None:
            source, target = fields.text(self.source), fields.text(self.target)
            if not source or not target:
                raise UnusableSampleError("a side is blank", "blank", harmless=True)
            return TextPair(name, self._tag(fields), source, target, self.corpus)
        assert self.caption is not None
        status = fields.status()
        if status != "success":
            reason = status if _STATUS.fullmatch(status) else "failed"
            raise UnusableSampleError(f"its status is {status!r:.60}", reason, harmless=True)
        texts = fields.texts(self.caption)
        if not texts:
            raise UnusableSampleError("the caption is blank", "blank", harmless=True)
        language = self._tag(fields)
        content = fields.image()
        extension, width, height = _image_facts(content)
        captions = tuple(Caption(language, text) for text in texts)
        return CaptionedImage(name, content, extension, width, height, captions, {}, self.corpus, key)

    def _tag(self, fields: "_Fields") -> str:
        if self.language is not None:
            return self.language
        assert self.language_at is not None
        tag = fields.text(self.language_at)
        if not _LANGUAGE.fullmatch(tag):
            raise UnusableSampleError(f"{self.language_at} is {tag!r:.60}, which is no BCP-47 tag", "unknown_language")
        return tag


def safe_key(shard: str, key: str) -> str:
    """Key of a record: tar and key as written, in characters that are safe everywhere, unique in a folder of tars.

    Raises:
        ValueError: it is too long.
    """
    name = re.sub(r"[^0-9a-z_-]", "_", f"{PurePath(shard).stem}-{key.removeprefix('./')}".lower())
    if not KEY.fullmatch(name):
        raise ValueError(f"the key {name[:120]!r} has {len(name)} characters; expected at most 90 with the tar's name")
    return name


class _Fields:
    """What is asked of the members of one sample."""

    def __init__(self, members: dict[str, bytes]) -> None:
        self._members = members
        self._json: Any = None

    def text(self, place: str) -> str:
        """The text at a place, without blanks around it."""
        value = self._value(place)
        if not isinstance(value, str):
            raise UnusableSampleError(f"{place} is {type(value).__name__} {value!r:.60}; expected a string", "no_text")
        return _plain(value, place)

    def texts(self, place: str) -> list[str]:
        """The text or texts at a place; blank ones are left out."""
        value = self._value(place)
        values = value if isinstance(value, list) else [value]
        if any(not isinstance(text, str) for text in values):
            raise UnusableSampleError(f"{place} is {value!r:.60}; expected a string, or a list of them", "no_text")
        return [text for text in (_plain(text, place) for text in values) if text]

    def status(self) -> str:
        """What img2dataset says of the download; ``success`` for samples of other programs."""
        if "json" not in self._members:
            return "success"
        fields = self._parsed()
        return str(fields.get("status") or "success") if isinstance(fields, dict) else "success"

    def image(self) -> bytes:
        """The encoded image."""
        found = [name for name in _IMAGES if name in self._members]
        if len(found) != 1:
            raise UnusableSampleError(
                f"members {sorted(self._members)} have {len(found)} images; expected one of .jpg, .jpeg or .png",
                "missing_image",
            )
        return self._members[found[0]]

    def _value(self, place: str) -> Any:
        if not place.startswith("json."):
            if place not in self._members:
                raise UnusableSampleError(f"no member .{place} among {sorted(self._members)}", "missing_part")
            try:
                return self._members[place].decode("utf-8")
            except UnicodeDecodeError as error:
                raise UnusableSampleError(f".{place} is not UTF-8 ({error})", "no_text") from None
        value = self._parsed()
        for name in place.split(".")[1:]:
            if not isinstance(value, dict) or name not in value:
                raise UnusableSampleError(f"no field {place} in the JSON", "missing_part")
            value = value[name]
        return "" if value is None else value

    def _parsed(self) -> Any:
        if self._json is None:
            if "json" not in self._members:
                raise UnusableSampleError(f"no member .json among {sorted(self._members)}", "missing_part")
            try:
                self._json = json.loads(self._members["json"])
            except (ValueError, RecursionError) as error:
                raise UnusableSampleError(f".json is no JSON ({error})", "no_text") from None
        return self._json


def _plain(text: str, place: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UnusableSampleError(f"{place} has no UTF-8 form ({error})", "no_text") from None
    return text.strip()


def _image_facts(content: bytes) -> tuple[str, int, int]:
    """Extension and size in pixels, from the header alone."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=tuple(_EXTENSIONS)) as image:
                extension, (width, height) = _EXTENSIONS[image.format or ""], image.size
    except Image.DecompressionBombError as error:
        raise UnusableSampleError(f"too large an image ({error})", "image_too_large") from None
    except Exception as error:  # decoders raise almost any class on damaged bytes
        raise UnusableSampleError(f"the image is damaged ({error or type(error).__name__})", "damaged_image") from None
    if width * height > _MAX_PIXELS:
        raise UnusableSampleError(f"too large an image: {width} x {height} pixels", "image_too_large")
    return extension, width, height
