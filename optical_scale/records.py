"""One sample of data as plain values, before any tensor exists."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class TextPair:
    """Two sentences that say the same thing.

    Attributes:
        key: unique within a corpus, made of ``[0-9a-z_-]`` only (a dot would split a webdataset key).
        language: BCP-47 tag of the target side, for example ``sw``; ``en`` for English paraphrases.
        source: the English side, read by the teacher.
        target: the other side, read by the student.
        corpus: name of the corpus the pair came from.
        negatives: where the target is a query and the source a passage that answers it: passages that do not.
        scores: how well the source, and then each negative, answers the target, as somebody judged it; all or none.
    """

    key: str
    language: str
    source: str
    target: str
    corpus: str = ""
    negatives: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Box:
    """An axis-aligned box in pixels of the stored image: left, top inclusive; right, bottom exclusive."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, slots=True)
class Phrase:
    """A span of a caption that names something, as in Flickr30k-Entities.

    Attributes:
        entity: id that the caption shares with the regions of the image; ``0`` means not visible.
        kind: entity type, for example ``people``, ``clothing``, ``scene`` or ``other``.
        start: first character of the phrase in the caption's plain text.
        end: character after the last one.
    """

    entity: str
    kind: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Caption:
    """One caption in one language (BCP-47 tag) with the phrases annotated in it, possibly none.

    Attributes:
        language: its tag.
        text: plain text.
        phrases: what the text names.
        id: the source's own name of the sentence, unique within its language; empty where it has none.
    """

    language: str
    text: str
    phrases: tuple[Phrase, ...] = ()
    id: str = ""


@dataclass(frozen=True, slots=True)
class CaptionedImage:
    """An encoded image with its captions and the regions its phrases point to.

    Attributes:
        key: as in :class:`TextPair`.
        image: the encoded file (JPEG or PNG bytes).
        extension: ``jpg`` or ``png``, the member name in the shard.
        width: pixels.
        height: pixels.
        captions: all captions, in any order of languages.
        regions: boxes by entity id.
        corpus: name of the corpus.
        image_id: the source's own name of the image; empty where it has none.
        split: which part of the corpus the source puts it into, as ``train`` or ``restval``; empty where it has none.
    """

    key: str
    image: bytes
    extension: str
    width: int
    height: int
    captions: tuple[Caption, ...]
    regions: Mapping[str, tuple[Box, ...]] = field(default_factory=dict)
    corpus: str = ""
    image_id: str = ""
    split: str = ""


Record = TextPair | CaptionedImage
