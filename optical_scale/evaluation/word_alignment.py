"""Transport plans against gold word alignments: alignment error rate (Och and Ney, Computational Linguistics 2003).

Links are pairs of word positions counted from 0, English first.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from optical_scale.corpora.reader import read_lines
from optical_scale.errors import EvaluationError

Links = frozenset[tuple[int, int]]
_PHARAOH = re.compile(r"(\d+)([-?p])(\d+)")


@dataclass(frozen=True, slots=True)
class GoldAlignment:
    """Links of one sentence pair by people.

    Attributes:
        sure: those that all agree on.
        possible: those that are allowed, the sure ones among them.
    """

    sure: Links
    possible: Links


@dataclass(frozen=True, slots=True)
class AlignmentQuality:
    """Over a whole set: error rate (0 is best), share of the found links that are possible, of sure links found."""

    aer: float
    precision: float
    recall: float
    sentences: int


def read_pharaoh(path: Path) -> Iterator[GoldAlignment]:
    """One sentence pair per line, links from 0 on: ``0-0 1-2`` sure, ``3?4`` or ``3p4`` possible.

    Raises:
        EvaluationError: a link is written otherwise.
    """
    for number, line in enumerate(read_lines(path), start=1):
        sure, possible = set(), set()
        for item in line.split():
            if not (match := _PHARAOH.fullmatch(item)):
                raise EvaluationError(f"{path}:{number}: the link {item[:20]!r}; expected as in `0-0 1-2 3?4`")
            link = int(match[1]), int(match[3])
            possible.add(link)
            if match[2] == "-":
                sure.add(link)
        yield GoldAlignment(frozenset(sure), frozenset(possible))


def read_naacl(path: Path) -> dict[int, GoldAlignment]:
    """The format of the NAACL 2003 shared task: ``sentence source target [S|P] [confidence]``, all counted from 1.

    Returns:
        Alignments by number of the sentence pair, from 1 on; a pair without links is missing.

    Raises:
        EvaluationError: a line has other columns.
    """
    links: dict[int, tuple[set[tuple[int, int]], set[tuple[int, int]]]] = {}
    for number, line in enumerate(read_lines(path), start=1):
        row = line.split()
        if not row:
            continue
        kind = row[3] if len(row) > 3 and row[3] in "SP" else "S"
        if len(row) < 3 or not all(item.isdecimal() and int(item) > 0 for item in row[:3]):
            raise EvaluationError(f"{path}:{number}: {line[:60]!r}; expected `sentence source target [S|P]` from 1 on")
        sentence, source, target = map(int, row[:3])
        sure, possible = links.setdefault(sentence, (set(), set()))
        possible.add((source - 1, target - 1))
        if kind == "S":
            sure.add((source - 1, target - 1))
    return {sentence: GoldAlignment(frozenset(s), frozenset(p)) for sentence, (s, p) in links.items()}


def token_words(tokenizer: Any, words: Sequence[str]) -> tuple[list[int], list[int | None]]:
    """Token ids of a text that is split into words already, and each token's word; None for special tokens.

    Args:
        tokenizer: a fast tokenizer of transformers.
        words: the text.
    """
    encoded = tokenizer(list(words), is_split_into_words=True)
    return encoded["input_ids"], encoded.word_ids()


def word_mass(plan_NM: Tensor, source_words: Sequence[int | None], target_words: Sequence[int | None]) -> Tensor:
    """Sum of the plan's mass over the tokens of each pair of words.

    Args:
        plan_NM: masses ≥ 0 between tokens.
        source_words: for each row the position of its word, None leaves it out.
        target_words: likewise for each column.

    Returns:
        Float (W, V): words of either side up to the last one that has a token.

    Raises:
        EvaluationError: lengths and plan differ, or a side has no word.
    """
    if plan_NM.shape != (len(source_words), len(target_words)):
        raise EvaluationError(
            f"alignment: a plan of {tuple(plan_NM.shape)} for {len(source_words)} and {len(target_words)} tokens"
        )
    return _selector(source_words, plan_NM) @ plan_NM @ _selector(target_words, plan_NM).T


def _selector(words: Sequence[int | None], like: Tensor) -> Tensor:
    """1 where a word has a token, 0 elsewhere."""
    known = [(word, token) for token, word in enumerate(words) if word is not None]
    if not known:
        raise EvaluationError("alignment: a sentence has no word; remove the pair")
    selector_WN = like.new_zeros(1 + max(word for word, _ in known), len(words))
    rows, columns = zip(*known, strict=True)
    selector_WN[list(rows), list(columns)] = 1
    return selector_WN


def choose_links(mass_WV: Tensor, threshold: float | None = None) -> Links:
    """Links out of the mass between words.

    Args:
        mass_WV: from :func:`word_mass`.
        threshold: keep pairs that hold more than this share of the mass of both their words (Dou and Neubig, EACL
            2021). None: keep pairs that are each other's best (Jalili Sabet et al., Findings of EMNLP 2020).
    """
    if threshold is None:
        best_W, best_V = mass_WV.argmax(1), mass_WV.argmax(0)
        source = torch.arange(len(best_W), device=mass_WV.device)
        mutual = (best_V[best_W] == source) & (mass_WV[source, best_W] > 0)
        return frozenset(zip(source[mutual].tolist(), best_W[mutual].tolist(), strict=True))
    tiny = torch.finfo(mass_WV.dtype).tiny
    rows = mass_WV / mass_WV.sum(1, keepdim=True).clamp_min(tiny)
    columns = mass_WV / mass_WV.sum(0, keepdim=True).clamp_min(tiny)
    kept = ((rows > threshold) & (columns > threshold)).nonzero()
    return frozenset((int(source), int(target)) for source, target in kept)


def alignment_quality(found: Sequence[Links], gold: Sequence[GoldAlignment]) -> AlignmentQuality:
    """Counts are summed over all pairs before they are divided: AER = 1 - (|A ∩ S| + |A ∩ P|) / (|A| + |S|).

    Raises:
        EvaluationError: unequal numbers of pairs, no sure link at all, or none found.
    """
    if len(found) != len(gold):
        raise EvaluationError(f"alignment: {len(found)} pairs aligned, {len(gold)} gold alignments; expected as many")
    made, sure = sum(map(len, found)), sum(len(pair.sure) for pair in gold)
    if not made or not sure:
        raise EvaluationError(f"alignment: {made} links found, {sure} sure links in the gold; nothing to compare")
    hit_sure = sum(len(links & pair.sure) for links, pair in zip(found, gold, strict=True))
    hit_possible = sum(len(links & (pair.possible | pair.sure)) for links, pair in zip(found, gold, strict=True))
    return AlignmentQuality(
        aer=1 - (hit_sure + hit_possible) / (made + sure),
        precision=hit_possible / made,
        recall=hit_sure / sure,
        sentences=len(gold),
    )
