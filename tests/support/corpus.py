"""A tiny language pair with a planted dictionary: word i of one side is word i of the other, so it can be learned."""

import random
from pathlib import Path

from optical_scale.backbones.tokenizers import train_unigram
from optical_scale.config.convert import ConvertConfig
from optical_scale.recipes.convert import convert

WORDS = 40
_SYLLABLES = {"en": ("ba", "do", "ki", "lu"), "sw": ("mwa", "nyu", "zi", "po"), "de": ("sch", "gru", "tel", "fen")}


def word(language: str, meaning: int) -> str:
    """The word for ``meaning``; languages share no syllable."""
    syllables = _SYLLABLES[language]
    return syllables[meaning % 4] + syllables[meaning // 4 % 4] + syllables[meaning // 16 % 4]


def sentences(count: int, seed: int = 0) -> list[list[int]]:
    """Meanings of ``count`` different sentences of three to six words."""
    numbers = random.Random(seed)
    found: dict[tuple[int, ...], None] = {}
    while len(found) < count:
        found[tuple(numbers.choices(range(WORDS), k=numbers.randint(3, 6)))] = None
    return [list(meanings) for meanings in found]


def write_moses(folder: Path, name: str, count: int, languages: tuple[str, ...] = ("sw", "de"), seed: int = 0) -> Path:
    """``folder/name.en``, ``folder/name.sw``, …: line n of each says the same."""
    folder.mkdir(parents=True, exist_ok=True)
    for language in ("en", *languages):
        lines = (" ".join(word(language, meaning) for meaning in meanings) for meanings in sentences(count, seed))
        (folder / f"{name}.{language}").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return folder


def write_shards(output: Path, count: int, languages: tuple[str, ...] = ("sw", "de"), seed: int = 0) -> Path:
    """The same corpus converted to shards by the project's own recipe."""
    text = write_moses(output.with_name(f"{output.name}_text"), "tiny", count, languages, seed)
    corpora = [
        {"format": "moses", "name": "tiny", "language": language, "source": "tiny.en", "target": f"tiny.{language}"}
        for language in languages
    ]
    convert(ConvertConfig.model_validate({"output": output, "folder": text, "corpora": corpora}))
    return output


def write_tokenizer(output: Path, languages: tuple[str, ...] = ("en", "sw", "de")) -> int:
    """A unigram tokenizer that knows these languages; returns its number of pieces."""
    texts = [" ".join(word(l, meaning) for meaning in meanings) for l in languages for meanings in sentences(60)]
    return train_unigram(texts, output, vocabulary=96)
