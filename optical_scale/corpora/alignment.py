"""Where the two sides of a line-aligned corpus are out of step: one lost line, and every pair after it is wrong.

Translations of long sentences are long, so over a window of pairs the lengths of both sides rise and fall together. A
window in which they do so only when one side is moved by a few lines is out of step; one in which they never do holds
something else. Numbers and acronyms, which translators keep, have to agree (lengths of sides: Gale & Church 1993).
"""

import math
import unicodedata
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import regex

from optical_scale.corpora.reader import LeftOut
from optical_scale.records import Record, TextPair

WINDOW: Final = 100
"""Pairs looked at together."""
FARTHEST: Final = 5
"""Largest shift looked for, in pairs."""
_SHIFTS = range(-FARTHEST, FARTHEST + 1)
_LEAST_PAIRS = WINDOW // 2
"""Windows with fewer say nothing."""
_RUN_SHIFTED, _RUN_UNRELATED, _RUN_ALONE = 2, 2, 10
"""Windows in a row: of one shift; unrelated, where other windows of the corpus agree; unrelated without any such."""
_LEAST_GAIN, _LEAST_CORRELATION = 5.0, 0.4
"""At a shift against none: standard errors of the difference below (about 3.5), and the correlation itself."""
_CHANCE, _TYPICAL = 2.0, 6.0
"""Standard errors above 0 that lengths of unrelated texts may reach, and that a corpus in step reaches."""
_LEAST_KEPT, _SHARED_IN_STEP = 10, 0.4
"""Numbers and acronyms of a window that suffice to speak against an alarm, and the share that does."""
_ONE = 1 - 1e-9
_LEAST_SPREAD = 0.2
"""Standard deviation of the logarithms of the lengths of a side; below, as in sorted files, a window says nothing."""
_Lengths = np.ndarray[tuple[int], np.dtype[np.float64]]
_KEPT = regex.compile(r"\d+|\b(?=\w*\p{Lu}\w*\p{Lu})[A-Za-z]{2,}\b")


@dataclass(frozen=True, slots=True)
class Misaligned:
    """A stretch of a corpus whose sides do not belong together.

    Attributes:
        corpus: its name.
        language: of the target side.
        first: key of the first suspicious pair, to within a window.
        last: key of the last one.
        pairs: how many.
        shift: English line i belongs to line i + shift of the other side; None, to no line near by.
        correlation: of the logarithms of both lengths as the lines stand, mean over the windows.
        correlation_shifted: the same at ``shift``.
        shared: of numbers and acronyms of the English side, the share that the other has too; None without any.
        shared_shifted: the same at ``shift``.
    """

    corpus: str
    language: str
    first: str
    last: str
    pairs: int
    shift: int | None
    correlation: float
    correlation_shifted: float
    shared: float | None
    shared_shifted: float | None

    def __str__(self) -> str:
        what = "unrelated" if self.shift is None else f"shifted by {self.shift:+d} lines"
        numbers = ""
        if self.shared is not None and self.shared_shifted is not None:
            numbers = f"; {self.shared:.0%} of numbers and acronyms are on both sides"
            numbers += "" if self.shift is None else f", {self.shared_shifted:.0%} shifted"
        lengths = f"lengths correlate {self.correlation:.2f}"
        lengths += "" if self.shift is None else f", and {self.correlation_shifted:.2f} shifted"
        return (
            f"{self.corpus} ({self.language}): {self.pairs:,} pairs, about {self.first} to {self.last}, look {what} "
            f"({lengths}{numbers})"
        )


def find_misaligned(records: Iterable[Record | LeftOut]) -> Iterator[Misaligned]:
    """Yield stretches whose sides are out of step, corpora and languages apart, in the order in which they end.

    Keeps about a hundred pairs of every corpus and language, and 4 bytes of each hundred that went by. Needs the
    records of a file in its order and before filters, which would hide gaps.
    """
    streams: dict[tuple[str, str], _Stream] = {}
    for record in records:
        if isinstance(record, TextPair):
            name = record.corpus, record.language
            stream = streams.get(name) or streams.setdefault(name, _Stream())
            yield from stream.add(record)
    for stream in streams.values():
        yield from stream.finish()


@dataclass(slots=True)
class _Run:
    """Neighbouring windows that say the same, one at first.

    Attributes:
        first: key of the first pair.
        last: key of the last one.
        pairs: how many.
        shift: what all windows say: 0 in step, None unrelated.
        at_0: sum over the windows of the correlation as the lines stand.
        at_shift: the same at ``shift``.
        kept: numbers and acronyms on the English side.
        shared_0: how many of them are on the other side.
        shared_shift: the same at ``shift``.
        windows: how many.
    """

    first: str
    last: str
    pairs: int
    shift: int | None
    at_0: float
    at_shift: float
    kept: int = 0
    shared_0: int = 0
    shared_shift: int = 0
    windows: int = 1

    def absorb(self, other: "_Run") -> None:
        self.last = other.last
        for name in ("pairs", "at_0", "at_shift", "kept", "shared_0", "shared_shift", "windows"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


class _Stream:
    """The pairs of one corpus and language."""

    def __init__(self) -> None:
        self._pairs: list[TextPair] = []
        self._before = 0  # how many of them precede the next window: shifts reach there
        self._run: _Run | None = None
        self._unrelated: list[_Run] = []
        self._agreement = array("f")

    def add(self, pair: TextPair) -> Iterator[Misaligned]:
        self._pairs.append(pair)
        if len(self._pairs) == self._before + WINDOW + FARTHEST:
            yield from self._next(self._look(WINDOW))
            self._pairs = self._pairs[-2 * FARTHEST :]
            self._before = FARTHEST

    def finish(self) -> Iterator[Misaligned]:
        if (left := len(self._pairs) - self._before) >= _LEAST_PAIRS:
            yield from self._next(self._look(left))
        yield from self._next(None)
        usually_in_step = len(self._agreement) > 0 and float(np.median(self._agreement)) >= _TYPICAL
        for run in self._unrelated:
            if usually_in_step or run.windows >= _RUN_ALONE:
                yield self._report(run)

    def _next(self, window: _Run | None) -> Iterator[Misaligned]:
        """Lengthen the run, or end it and begin another."""
        run = self._run
        if run is not None and window is not None and run.shift == window.shift:
            run.absorb(window)
            return
        self._run = window
        if run is None or run.shift == 0:
            return
        if run.shift is None and run.windows >= _RUN_UNRELATED:
            self._unrelated.append(run)
        elif run.shift is not None and run.windows >= _RUN_SHIFTED:
            yield self._report(run)

    def _look(self, size: int) -> _Run:
        """Judge the next ``size`` pairs."""
        begin, end = self._before, self._before + size
        lengths = self._lengths()
        if min(float(side[begin:end].std()) for side in lengths) < _LEAST_SPREAD:
            return _Run(self._pairs[begin].key, self._pairs[end - 1].key, size, 0, 0, 0)
        correlations, scores = _correlations(*lengths, begin, end)
        at_0, best = correlations[FARTHEST], int(np.argmax(scores))
        self._agreement.append(scores[FARTHEST])
        window = _Run(self._pairs[begin].key, self._pairs[end - 1].key, size, 0, at_0, at_0)
        shifted = correlations[best] >= _LEAST_CORRELATION and scores[best] - scores[FARTHEST] >= _LEAST_GAIN
        if not shifted and scores[FARTHEST] >= _CHANCE:
            return window
        shift = _SHIFTS[best] if shifted else 0
        kept, (shared_0, shared_shift) = self._shared(begin, end, (0, shift))
        counter = kept >= _LEAST_KEPT and shared_0 >= (shared_shift if shifted else _SHARED_IN_STEP * kept)
        if not counter:
            window.shift, window.at_shift = (shift if shifted else None), correlations[best] if shifted else at_0
            window.kept, window.shared_0, window.shared_shift = kept, shared_0, shared_shift
        return window

    def _lengths(self) -> tuple[_Lengths, _Lengths]:
        """Logarithms of the characters of both sides."""
        source, target = (
            np.log1p(np.fromiter((len(getattr(pair, side)) for pair in self._pairs), np.float64, len(self._pairs)))
            for side in ("source", "target")
        )
        return source, target

    def _shared(self, begin: int, end: int, shifts: Iterable[int]) -> tuple[int, list[int]]:
        """How many numbers and acronyms the English side has, and at every shift how many the other side has too."""
        sources = [_kept(pair.source) for pair in self._pairs[begin:end]]
        targets = [_kept(pair.target) for pair in self._pairs]
        pairs = range(begin, end)
        shared = [
            sum(len(sources[i - begin] & targets[i + shift]) for i in pairs if 0 <= i + shift < len(targets))
            for shift in shifts
        ]
        return sum(map(len, sources)), shared

    def _report(self, run: _Run) -> Misaligned:
        last = self._pairs[-1]
        return Misaligned(
            last.corpus,
            last.language,
            run.first,
            run.last,
            run.pairs,
            run.shift,
            run.at_0 / run.windows,
            run.at_shift / run.windows,
            run.shared_0 / run.kept if run.kept else None,
            run.shared_shift / run.kept if run.kept else None,
        )


def _correlations(source: _Lengths, target: _Lengths, begin: int, end: int) -> tuple[list[float], list[float]]:
    """For every shift of the rows from ``begin`` to ``end``: plain, and in standard errors above 0 (Fisher's z)."""
    correlations, scores = [], []
    for shift in _SHIFTS:
        low, high = max(begin, -shift), min(end, len(source) - shift)
        x, y = source[low:high], target[low + shift : high + shift]
        x, y = x - x.mean(), y - y.mean()
        spread = math.sqrt(float(x @ x) * float(y @ y))
        correlation = min(float(x @ y) / spread, _ONE) if spread > 0 else 0.0
        correlations.append(correlation)
        scores.append(math.atanh(correlation) * math.sqrt(high - low - 3))
    return correlations, scores


def _kept(text: str) -> frozenset[str]:
    """Numbers in any script's digits, and acronyms."""
    found = _KEPT.findall(text)
    return frozenset("".join(str(unicodedata.decimal(c, c)) for c in token) for token in found)
