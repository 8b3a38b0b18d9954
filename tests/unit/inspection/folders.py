"""Shard folders with known contents."""

import io
from dataclasses import replace
from pathlib import Path

from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from optical_scale.records import Box, Caption, CaptionedImage, Phrase, TextPair
from optical_scale.shards.manifest import Dropped, write_manifest
from optical_scale.shards.writer import write_shards


def write(output: Path, records, dropped=(), per_shard: int = 7) -> Path:
    manifest = write_shards(records, output, per_shard)
    write_manifest(output, replace(manifest, dropped=tuple(dropped)))
    return output


def pairs(count: int, language: str = "sw", corpus: str = "news") -> list[TextPair]:
    """English of i words, target of 2i words."""
    return [
        TextPair(f"{corpus}-{language}-{i:08d}", language, " ".join(["dog"] * i), " ".join(["mbwa"] * 2 * i), corpus)
        for i in range(1, count + 1)
    ]


def picture(width: int = 400, height: int = 300) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(buffer, "JPEG")
    return buffer.getvalue()


def image(i: int, content: bytes | None = None, corpus: str = "f30k") -> CaptionedImage:
    """Two English captions, one German one for even numbers, two boxes for entity 1, one that nothing names."""
    captions = [
        Caption("en", "Two dogs .", (Phrase("1", "animals", 0, 8),)),
        Caption("en", "A hat", (Phrase("9", "clothing", 0, 5),)),
    ]
    return CaptionedImage(
        key=f"{corpus}-{i}",
        image=picture() if content is None else content,
        extension="jpg",
        width=400,
        height=300,
        captions=(*captions, *([Caption("de", "Zwei Hunde .")] if i % 2 == 0 else [])),
        regions={"1": (Box(0, 0, 10, 20), Box(1, 2, 3, 4)), "7": (Box(0, 0, 40, 30),)},
        corpus=corpus,
    )


def write_tokenizer(path: Path) -> Path:
    """Knows ``dog``; anything else is unknown; adds two special tokens."""
    tokenizer = Tokenizer(models.WordLevel({"[CLS]": 0, "[SEP]": 1, "[UNK]": 2, "dog": 3}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 0), ("[SEP]", 1)]
    )
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=4, pad_id=2)
    tokenizer.save(str(path))
    return path


DROPPED = (
    Dropped("news", "sw", "blank", 3),
    Dropped("news", "sw", "duplicate", 4),
    Dropped("lost", "yo", "blank", 2),
)
