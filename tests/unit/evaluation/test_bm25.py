import math

import numpy as np
import pytest

from optical_scale.errors import EvaluationError

pytest.importorskip("bm25s")

from optical_scale.evaluation.bm25 import Bm25, words

DOCUMENTS = ["the cat sat", "the dog sat on the cat", "a bird", "Cat cat"]


def test_scores_are_those_of_the_formula_and_ties_go_to_the_higher_position():
    hits = Bm25([*DOCUMENTS, "the cat sat"]).search(["cat"], top_k=10)
    assert hits.positions_QK[0].tolist() == [3, 4, 0, 1, -1]
    lengths = [3, 6, 2, 2, 3]
    idf = math.log(1 + (5 - 4 + 0.5) / (4 + 0.5))
    expected = idf * 2 / (2 + 0.9 * (1 - 0.4 + 0.4 * 2 / np.mean(lengths)))
    # bm25s leaves out the constant factor k1 + 1, as Lucene does
    assert hits.scores_QK[0, 0] == pytest.approx(expected, abs=1e-4)
    assert hits.scores_QK[0, 1] == hits.scores_QK[0, 2]


def test_topics_without_known_words_find_nothing():
    hits = Bm25(DOCUMENTS).search(["zebra", "...", "bird"], top_k=2)
    assert hits.positions_QK.tolist() == [[-1, -1], [-1, -1], [2, -1]]
    with pytest.raises(EvaluationError, match="no document has a word"):
        Bm25(["...", ""])


def test_words_keep_their_marks():
    assert words("हिन्दी, Straße e\u0301t\u00e9") == ["हिन्दी", "strasse", "e\u0301t\u00e9"]
