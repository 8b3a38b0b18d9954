"""Parallel sentences in English and eight languages, generated from CLDR: the demo's training bitext."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random

from optical_scale.errors import CorpusError
from optical_scale.runtime.seeding import derive_seed
from optical_scale.synthetic.languages import HIGH_RESOURCE, LANGUAGES, LOW_RESOURCE
from optical_scale.synthetic.moses import write_aligned
from optical_scale.synthetic.phrases import Kind, Speaker, Split, draw, phrase_kinds, split_of

Row = tuple[str, ...]
Phrase = tuple[Kind, tuple[int, ...]]


def write_bitext(folder: Path, *, seed: int, high: int, low: int, validation: int, test: int) -> dict[str, int]:
    """Write ``{train,validation,test}.en-XX.{en,XX}`` for the eight languages of :data:`LANGUAGES`.

    Every file holds equal shares of all phrase kinds. Validation and test have the same English lines for all
    languages. A sentence's split depends on its English words alone (:func:`split_of`), so no English sentence occurs
    in two splits, in whatever languages.

    Args:
        folder: existing folder for the files.
        seed: the same seed gives the same bytes (with the same version of Babel).
        high: training pairs for each of de, fr, es, cs.
        low: training pairs for each of sw, so, mr, fil.
        validation: lines per language.
        test: lines per language.

    Returns:
        Number of lines by file name.

    Raises:
        CorpusError: more distinct pairs are asked for than exist.
    """
    speakers = {language: Speaker(language) for language in ("en", *LANGUAGES)}
    counts: dict[str, int] = {}
    held_out: tuple[tuple[Split, int], ...] = (("validation", validation), ("test", test))
    for split, size in held_out:
        rows = _rows(speakers, ("en", *LANGUAGES), split, size, seed)
        for column, language in enumerate(LANGUAGES, start=1):
            pairs = [(row[0], row[column]) for row in rows]
            counts |= write_aligned(folder, f"{split}.en-{language}", ("en", language), pairs)
    for languages, size in ((HIGH_RESOURCE, high), (LOW_RESOURCE, low)):
        for language in languages:
            rows = _rows(speakers, ("en", language), "train", size, seed)
            counts |= write_aligned(folder, f"train.en-{language}", ("en", language), rows)
    return counts


def _rows(speakers: dict[str, Speaker], sides: Sequence[str], split: Split, size: int, seed: int) -> list[Row]:
    """``size`` distinct rows of one split, one text per side, English first."""

    def say(phrase: Phrase) -> Row | None:
        english = speakers["en"].say(*phrase)
        if split_of(english) != split:
            return None
        row = (english, *(speakers[side].say(*phrase) for side in sides[1:]))
        return None if english in row[1:] else row

    return collect(say, size, seed, split, "-".join(sides))


def collect(
    say: Callable[[Phrase], Row | None],
    size: int,
    seed: int,
    *purpose: str,
    kinds: Sequence[Kind] | None = None,
    taken: Sequence[set[str]] = (),
) -> list[Row]:
    """Draw phrases of all kinds in turn until ``size`` of them are said, then shuffle.

    Args:
        say: the texts of a phrase, or ``None`` to skip it; two phrases with the same first text count once.
        size: rows wanted.
        seed: with ``purpose`` decides which phrases are drawn, and their order.
        purpose: names the file, also in the message.
        kinds: :func:`phrase_kinds` unless given.
        taken: sets of texts that no returned row may contain.

    Raises:
        CorpusError: fewer than ``size`` exist.
    """
    kinds = phrase_kinds() if kinds is None else kinds
    most = sum(kind.size for kind in kinds)
    if size > most:
        raise _too_many(purpose, size, most, "at most ")
    streams: list[Iterator[Phrase]] = [draw(kind, seed, *purpose) for kind in kinds]
    rows: list[Row] = []
    seen: set[str] = set()
    while len(rows) < size and streams:
        streams = [s for s in streams if len(rows) >= size or _advance(s, say, rows, seen, taken)]
    if len(rows) < size:
        raise _too_many(purpose, size, len(rows), "")
    Random(derive_seed(seed, "order", *purpose)).shuffle(rows)
    return rows


def _advance(
    stream: Iterator[Phrase],
    say: Callable[[Phrase], Row | None],
    rows: list[Row],
    seen: set[str],
    taken: Sequence[set[str]],
) -> bool:
    """Append the stream's next sayable row; False when the stream has none left."""
    for phrase in stream:
        row = say(phrase)
        if row is None or row[0] in seen or any(text in texts for text in row for texts in taken):
            continue
        seen.add(row[0])
        rows.append(row)
        return True
    return False


def _too_many(purpose: Sequence[str], size: int, found: int, at_most: str) -> CorpusError:
    return CorpusError(
        f"synthetic corpus {' '.join(purpose)}: {size:,} distinct lines asked for, but {at_most}{found:,} exist; "
        "ask for fewer"
    )
