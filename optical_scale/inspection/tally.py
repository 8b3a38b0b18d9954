"""Statistics of texts and images while they pass by; what is kept of each is a few numbers."""

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import regex
from numpy.typing import NDArray

from optical_scale.inspection.schema import EDGES, LIMITS, Images, Side, Spread, Texts, Tokens
from optical_scale.inspection.tokens import TokenCounter
from optical_scale.records import CaptionedImage

_TOGETHER = 1024
_UNSPACED = regex.compile(
    "["
    + "".join(rf"\p{{Script={name}}}" for name in ("Hani", "Hira", "Kana", "Thai", "Laoo", "Khmr", "Mymr", "Tibt"))
    + r"](?<=\p{L})"
)
_LETTER = regex.compile(r"\p{L}")


def spread(values: Iterable[int]) -> Spread:
    """Distribution of numbers that are 0 or more; at least one."""
    all_N = np.fromiter(values, dtype=np.int64)
    low, median, high = np.percentile(all_N, (5, 50, 95)).tolist()
    counts, _ = np.histogram(all_N, bins=[*EDGES, np.inf])
    return Spread(
        mean=float(all_N.mean()),
        low=low,
        median=median,
        high=high,
        most=int(all_N.max()),
        counts=tuple(counts.tolist()),
    )


class _Tokens:
    """What one tokenizer makes of the texts of a tally."""

    def __init__(self, count: TokenCounter) -> None:
        self.count = count
        self.lengths = array("q")
        self.plain = 0
        self.unknown = 0

    def add(self, texts: Sequence[str]) -> None:
        found = self.count(texts)
        self.lengths.extend(found.all_B.tolist())
        self.plain += int(found.plain_B.sum())
        self.unknown += int(found.unknown_B.sum())


class TextTally:
    """Texts of one side in one language: 16 bytes are kept of each, and 8 for each tokenizer."""

    def __init__(self, counters: Sequence[TokenCounter]) -> None:
        self._waiting: list[str] = []
        self._characters = array("q")
        self._words = array("q")
        self._letters = 0
        self._unspaced = 0
        self._tokens = [_Tokens(count) for count in counters]

    def add(self, text: str) -> None:
        """Take one text into account."""
        self._waiting.append(text)
        if len(self._waiting) == _TOGETHER:
            self._flush()

    def _flush(self) -> None:
        texts, self._waiting = self._waiting, []
        if not texts:
            return
        for text in texts:
            self._characters.append(len(text))
            self._words.append(len(text.split()))
            self._letters += len(_LETTER.findall(text))
            self._unspaced += len(_UNSPACED.findall(text))
        for tokens in self._tokens:
            tokens.add(texts)

    def facts(self, language: str, side: Side, english: "TextTally | None" = None) -> Texts:
        """Statistics of what was added, at least one text.

        Args:
            language: for the record.
            side: for the record.
            english: the other side of the same pairs, if this one is their target.
        """
        for tally in (self, english):
            if tally is not None:
                tally._flush()
        spaced = 2 * self._unspaced <= self._letters
        return Texts(
            language=language,
            side=side,
            read=len(self._characters),
            characters=spread(self._characters),
            words=spread(self._words),
            spaced=spaced,
            tokens=tuple(
                self._token_facts(tokens, spaced, english._tokens[i].plain if english else 0)
                for i, tokens in enumerate(self._tokens)
            ),
        )

    def _token_facts(self, tokens: _Tokens, spaced: bool, english: int) -> Tokens:
        lengths_N: NDArray[np.int64] = np.array(tokens.lengths)
        total, words = int(lengths_N.sum()), sum(self._words)
        return Tokens(
            tokenizer=tokens.count.name,
            lengths=spread(tokens.lengths),
            per_word=tokens.plain / words if spaced and words else None,
            characters_per_token=sum(self._characters) / tokens.plain if tokens.plain else None,
            premium=tokens.plain / english if english else None,
            unknown=tokens.unknown / max(tokens.plain, 1),
            truncated={limit: float((lengths_N > limit).mean()) for limit in LIMITS},
            lost={limit: int((lengths_N - limit).clip(0).sum()) / max(total, 1) for limit in LIMITS},
        )


class ImageTally:
    """Images and the phrases and boxes of their captions."""

    def __init__(self, languages: Sequence[str]) -> None:
        self._languages = languages
        self._formats: Counter[str] = Counter()
        self._sizes = {name: array("q") for name in ("width", "height", "kibibytes")}
        self._captions: Counter[str] = Counter()
        self._covered: Counter[str] = Counter()
        self._phrases: Counter[str] = Counter()
        self._unplaced: Counter[str] = Counter()
        self._boxes: Counter[str] = Counter()
        self._unnamed = 0

    def add(self, record: CaptionedImage) -> None:
        """Take one image into account."""
        self._formats[record.extension] += 1
        for name, value in (
            ("width", record.width),
            ("height", record.height),
            ("kibibytes", -(-len(record.image) // 1024)),
        ):
            self._sizes[name].append(value)
        captions = [caption.language for caption in record.captions]
        self._captions.update(captions)
        self._covered.update(set(captions))
        phrases = [phrase for caption in record.captions for phrase in caption.phrases]
        self._phrases.update(phrase.kind for phrase in phrases)
        self._unplaced.update(phrase.kind for phrase in phrases if not record.regions.get(phrase.entity))
        for kind, entity in {(phrase.kind, phrase.entity) for phrase in phrases}:
            self._boxes[kind] += len(record.regions.get(entity, ()))
        named = {phrase.entity for phrase in phrases}
        self._unnamed += sum(len(boxes) for entity, boxes in record.regions.items() if entity not in named)

    def facts(self) -> Images:
        """Statistics of what was added, at least one image."""
        read = self._formats.total()
        return Images(
            read=read,
            formats=_sorted(self._formats),
            width=spread(self._sizes["width"]),
            height=spread(self._sizes["height"]),
            kibibytes=spread(self._sizes["kibibytes"]),
            captions={language: self._captions[language] / read for language in self._languages},
            bare={language: read - self._covered[language] for language in self._languages},
            phrases=_sorted(self._phrases),
            unplaced=_sorted(self._unplaced),
            boxes=_sorted(+self._boxes),
            unnamed=self._unnamed,
        )


def _sorted(counts: Counter[str]) -> dict[str, int]:
    """Most frequent first, ties by name."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
