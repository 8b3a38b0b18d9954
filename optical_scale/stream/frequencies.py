"""How much a token tells: its inverse document frequency among the training sentences of its language.

Languages are counted apart: pooled, function words of a small language would be as rare as names in a large one.
Tables come from counts alone, so any number of ranks makes the same ones, and so does a run that continues.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from optical_scale.batch import TokenBatch

PIECE, PIECES = 1024, 48
"""Of a source at most so many runs of so many samples are counted."""


def places(samples: int) -> list[range]:
    """Which samples of a source are counted: all, or runs that are spread evenly, as they lie near one another."""
    runs = min(PIECES, -(-samples // PIECE))
    ends = [number * samples // runs for number in range(runs + 1)] if runs else []
    return [range(start, min(start + PIECE, end)) for start, end in itertools.pairwise(ends)]


def document_counts(rows: Iterable[NDArray[np.integer]], vocabulary: int) -> NDArray[np.int64]:
    """In how many of ``rows`` each id occurs, (V,), and behind it how many rows there are."""
    distinct = [np.unique(row) for row in rows]
    found = np.bincount(np.concatenate([np.zeros(0, np.int64), *distinct]).astype(np.int64), minlength=vocabulary)
    return np.append(found, len(distinct)).astype(np.int64)


class InverseDocumentFrequency:
    """-ln of the probability that a sentence of the language contains the token, (df + 1) / (n + 2).

    df of n sentences have it; the estimate is Laplace's, so that a token of every sentence keeps some weight and one of
    none is finite. Sentences are the documents, as in BERTScore (Zhang et al. 2020, arXiv 1904.09675), and the weights
    are masses of transport, as in MoverScore (Zhao et al. 2019, arXiv 1909.02622).

    Args:
        counts: by language, as :func:`document_counts` gives them, summed over ranks.
    """

    def __init__(self, counts: Mapping[str, NDArray[np.int64]]) -> None:
        self.tables = {
            language: -np.log((found[:-1] + 1) / (found[-1] + 2)).astype(np.float32)
            for language, found in counts.items()
        }

    def weigh(self, batch: TokenBatch, languages: Sequence[str]) -> TokenBatch:
        """The same batch with the weight of every token; ``languages`` are those of its rows."""
        idf_BT = np.zeros(batch.ids_BT.shape, np.float32)
        for language in set(languages):
            rows = [row for row, other in enumerate(languages) if other == language]
            idf_BT[rows] = self.tables[language][batch.ids_BT.numpy()[rows]]
        idf_BT[~batch.attention_BT.numpy()] = 0.0
        return replace(batch, idf_BT=torch.from_numpy(idf_BT))
