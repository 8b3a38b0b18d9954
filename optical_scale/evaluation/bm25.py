"""BM25 through bm25s (Lù 2024, arXiv 2407.03618): the lexical baseline, for topics in the documents' language."""

from collections.abc import Iterable, Sequence

import numpy as np
import regex

from optical_scale.errors import EvaluationError
from optical_scale.evaluation.search import Hits

# Letters, digits and the marks that belong to them: a plain \w would cut the words of Hindi at every vowel sign.
_WORD = regex.compile(r"[\w\p{M}]+")
_DECIMALS = 5


def words(text: str) -> list[str]:
    """Words of a text for matching, in lower case; no stemming and no list of stop words, the same in all languages."""
    return [str(word) for word in _WORD.findall(text.casefold())]


class Bm25:
    """An index in memory: one entry per distinct word and document.

    Args:
        documents: texts by position.
        k1: saturation of repeated words.
        b: how much long documents are held back. The defaults are those of Anserini's published baselines.

    Raises:
        EvaluationError: bm25s is not installed, or no document has a word.
    """

    def __init__(self, documents: Iterable[str], k1: float = 0.9, b: float = 0.4) -> None:
        try:
            import bm25s
        except ImportError:
            raise EvaluationError(
                "bm25 needs bm25s, which is not installed; run `pip install optical-scale[retrieval]`"
            ) from None
        tokens = [words(text) for text in documents]
        if not any(tokens):
            raise EvaluationError("bm25: no document has a word; check the collection")
        self._index = bm25s.BM25(k1=k1, b=b, method="lucene")
        self._index.index(tokens, show_progress=False)
        self._documents = len(tokens)

    def search(self, topics: Sequence[str], top_k: int) -> Hits:
        """The best documents of every topic that share a word with it; of equal scores the higher position first."""
        top_k = min(top_k, self._documents)
        positions_QK = np.full((len(topics), top_k), -1, dtype=np.int64)
        scores_QK = np.full((len(topics), top_k), -np.inf)
        for row, topic in enumerate(topics):
            known = [word for word in words(topic) if word in self._index.vocab_dict]
            if not known:
                continue
            fixed_point = np.rint(self._index.get_scores(known).astype(np.float64) * 10**_DECIMALS).astype(np.int64)
            keys = fixed_point * self._documents + np.arange(self._documents)
            best = np.argpartition(keys, self._documents - top_k)[self._documents - top_k :]
            best = best[np.argsort(keys[best])[::-1]]
            best = best[fixed_point[best] > 0]
            positions_QK[row, : len(best)] = best
            scores_QK[row, : len(best)] = fixed_point[best] / 10**_DECIMALS
        return Hits(positions_QK, scores_QK)
