"""Encoded samples in bulk: few objects for many samples, so that they pass between processes and into a tar quickly."""

import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Self

import numpy as np
from numpy.typing import NDArray

from optical_scale.records import CaptionedImage, Record, TextPair
from optical_scale.shards.codec import encode


@dataclass(frozen=True, slots=True)
class Samples:
    """Samples of one corpus that go, in order, to shards of one language or of images.

    Attributes:
        corpus: where they come from.
        language: of the shards; None for images.
        keys: of N samples.
        sizes_N: bytes of each (int64).
        checksums_N: CRC-32 of each (uint32).
        content: their tar members, one after the other.
        counts: by language, pairs, or captions of images.
    """

    corpus: str
    language: str | None
    keys: Sequence[str]
    sizes_N: NDArray[np.int64]
    checksums_N: NDArray[np.uint32]
    content: bytes
    counts: dict[str, int]

    @classmethod
    def of(cls, records: Sequence[Record]) -> Self:
        """Encode records of one corpus, and of one language if they are pairs.

        Raises:
            ShardError: as :func:`optical_scale.shards.codec.encode`.
        """
        encoded = [encode(record) for record in records]
        first = records[0]
        if isinstance(first, TextPair):
            language: str | None = first.language
            counts = {first.language: len(records)}
        else:
            language = None
            images = (record for record in records if isinstance(record, CaptionedImage))
            counts = Counter(caption.language for image in images for caption in image.captions)
        return cls(
            first.corpus,
            language,
            [record.key for record in records],
            np.fromiter(map(len, encoded), np.int64),
            np.fromiter(map(zlib.crc32, encoded), np.uint32),
            b"".join(encoded),
            dict(counts),
        )

    def bytes_of(self, part: slice) -> memoryview:
        """Content of the samples of ``part``."""
        start, size = self.sizes_N[: part.start].sum(), self.sizes_N[part].sum()
        return memoryview(self.content)[start : start + size]

    def __len__(self) -> int:
        """N."""
        return len(self.keys)

    def pairs(self, wanted_N: NDArray[np.bool_]) -> Self:
        """Those of the pairs that are wanted."""
        assert self.language is not None
        ends_N = np.cumsum(self.sizes_N)
        places = zip((ends_N - self.sizes_N)[wanted_N].tolist(), ends_N[wanted_N].tolist(), strict=True)
        return type(self)(
            self.corpus,
            self.language,
            list(compress(self.keys, wanted_N.tolist())),
            self.sizes_N[wanted_N],
            self.checksums_N[wanted_N],
            b"".join(self.content[start:end] for start, end in places),
            {self.language: int(wanted_N.sum())},
        )


def grouped(records: Iterable[Record]) -> list[list[Record]]:
    """Records by language (images are one more) and, within it, runs of one corpus; the order in a language stays."""
    by_language: dict[str | None, list[list[Record]]] = {}
    for record in records:
        runs = by_language.setdefault(record.language if isinstance(record, TextPair) else None, [])
        if not runs or runs[-1][0].corpus != record.corpus:
            runs.append([])
        runs[-1].append(record)
    return [run for runs in by_language.values() for run in runs]
