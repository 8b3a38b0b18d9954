"""Pairs that say almost the same as an earlier one: equal texts but for trifles, and MinHash over pieces of both sides.

MinHash: Broder 1997; banding: Indyk & Motwani 1998. Of two sets of pieces with Jaccard similarity s, one hash has the
same minimum with probability s; ``rows`` of them with s^rows; at least one of ``bands`` such groups with
1 - (1 - s^rows)^bands, which :func:`match_probability` computes.
"""

import hashlib
from typing import Final

import numpy as np
import regex

from optical_scale.corpora.filters import normalized
from optical_scale.records import TextPair

_BLOCK: Final = 512
"""Pieces hashed at once, so that a text of megabytes takes no gigabytes."""
_DIGIT = regex.compile(r"\p{Nd}")
_Hashes = np.ndarray[tuple[int], np.dtype[np.uint32]]


def match_probability(similarity: float, bands: int, rows: int) -> float:
    """Probability that two pairs share a band digest, given the Jaccard similarity of their pieces (0 to 1)."""
    return 1 - (1 - similarity**rows) ** bands


class NearDigests:
    """What near-equal pairs have in common, as 64-bit digests: pairs match if they share one.

    The first digest is of both texts without case, punctuation, spacing and the values of digits; the others are bands
    of MinHash over their pieces of ``piece`` characters. Pairs of different languages never match. The digests are a
    function of the pair alone, the same in every process and on every machine.

    Args:
        bands: number of MinHash digests; 0 leaves only the first digest.
        rows: hashes in each of them.
        piece: characters that a piece has.
    """

    def __init__(self, bands: int = 6, rows: int = 12, piece: int = 5) -> None:
        self._bands, self._rows, self._piece = bands, rows, piece
        random = np.random.Generator(np.random.PCG64(0))
        factors = random.integers(0, 2**31, bands * rows, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
        self._factors_K1 = factors[:, None]
        self._offsets_K1 = random.integers(0, 2**32, (bands * rows, 1), dtype=np.uint32)
        self._powers = [np.uint64(pow(0x9E3779B97F4A7C15, power, 2**64)) for power in range(1, piece + 1)]

    @property
    def per_pair(self) -> int:
        """Length of what calling returns, at most."""
        return 1 + self._bands

    def __call__(self, pair: TextPair) -> tuple[int, ...]:
        """Digests of a pair; of two texts without letters and digits, none."""
        text = "\n".join(_DIGIT.sub("0", normalized(side)) for side in (pair.source, pair.target))
        if text == "\n":
            return ()
        whole = _digest(f"{pair.language}\n{text}".encode())
        if not self._bands or len(text) < self._piece:
            return (whole,)
        minima = self._minima(text).reshape(self._bands, self._rows)
        prefix = pair.language.encode()
        bands = (_digest(b"%s\n%d\n" % (prefix, band) + row.tobytes()) for band, row in enumerate(minima))
        return whole, *bands

    def _minima(self, text: str) -> _Hashes:
        """For each hash function (multiply and add, modulo 2^32), its smallest value over all pieces of the text."""
        pieces = self._pieces(text)
        minima = np.full(len(self._factors_K1), 2**32 - 1, np.uint32)
        for start in range(0, len(pieces), _BLOCK):
            hashed_KS = self._factors_K1 * pieces[None, start : start + _BLOCK]
            hashed_KS += self._offsets_K1
            minima = np.minimum(minima, hashed_KS.min(axis=1))
        return minima

    def _pieces(self, text: str) -> _Hashes:
        """One mixed value for each piece of the text; arithmetic wraps around."""
        characters = np.frombuffer(text.encode("utf-32-le"), np.uint32).astype(np.uint64)
        number = len(characters) - self._piece + 1
        pieces = np.zeros(number, np.uint64)
        for place, power in enumerate(self._powers):
            pieces += characters[place : place + number] * power
        pieces ^= pieces >> np.uint64(31)
        pieces *= np.uint64(0xBF58476D1CE4E5B9)
        return (pieces >> np.uint64(32)).astype(np.uint32)


def _digest(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
