"""Pairs that were there before, equal or nearly so: what they are known by, and who remembers it."""

from collections.abc import Sequence

from optical_scale.corpora.filters import pair_digest
from optical_scale.corpora.near import NearDigests
from optical_scale.corpora.seen import SeenDigests
from optical_scale.records import TextPair

_NEAR = 0x5851F42D4C957F2D
"""Sets digests of near duplicates apart from those of equal pairs in one table."""


class PairDigests:
    """What a pair is known by; stateless, so that it may be computed in any process.

    Args:
        exact: equal pairs shall be found.
        near: those that are nearly equal; None does not look for them.
    """

    def __init__(self, exact: bool, near: NearDigests | None) -> None:
        self.exact, self._near = exact, near

    @property
    def per_pair(self) -> int:
        """Digests of a pair, at most."""
        return self.exact + (self._near.per_pair if self._near else 0)

    def __call__(self, pair: TextPair) -> tuple[int, ...]:
        """The digest of the whole pair first, where equal pairs are wanted out."""
        found = (pair_digest(pair),) if self.exact else ()
        return found if self._near is None else (*found, *(digest ^ _NEAR for digest in self._near(pair)))


class KeptPairs:
    """Tells new pairs from those that were there before. Pairs have to come in the order of the corpora.

    Args:
        seen: room for ``per_pair`` digests of every pair.
        exact: as of :class:`PairDigests`.
    """

    def __init__(self, seen: SeenDigests, exact: bool) -> None:
        self._seen, self._exact = seen, exact

    def judge(self, pairs: Sequence[Sequence[int]]) -> tuple[list[str | None], list[int]]:
        """For each pair why it goes, None if it stays; and the digests that are remembered from now on.

        A near duplicate leaves nothing behind that others could resemble, so similarity does not creep along a chain.
        """
        remembered: list[int] = []
        return [self._reason(digests, remembered) for digests in pairs], remembered

    def _reason(self, digests: Sequence[int], remembered: list[int]) -> str | None:
        seen = self._seen
        if self._exact:
            if not seen.add(digests[0]):
                return "duplicate"
            remembered.append(digests[0])
            digests = digests[1:]
        if any(digest in seen for digest in digests):
            return "near_duplicate"
        remembered += [digest for digest in digests if seen.add(digest)]
        return None
