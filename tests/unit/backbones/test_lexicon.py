"""IBM model 1 on a planted dictionary."""

import numpy as np
import pytest
import torch

from optical_scale.backbones.lexicon import Lexicon, expected_vectors, learn_lexicon

WORDS = 12
OFFSET = 100


def planted(sentences: int = 400, length: int = 5) -> list[tuple[list[int], list[int]]]:
    """Student word w means teacher word OFFSET + w; the words of a sentence come in another order on each side."""
    rng = np.random.default_rng(0)
    pairs = []
    for _ in range(sentences):
        words = rng.choice(WORDS, length, replace=False)
        pairs.append(((rng.permutation(words) + OFFSET).tolist(), words.tolist()))
    return pairs


def best(lexicon: Lexicon, student: int) -> int:
    rows = lexicon.student == student
    return int(lexicon.teacher[rows][lexicon.probability[rows].argmax()])


def test_planted_dictionary_is_found() -> None:
    lexicon = learn_lexicon(planted())
    assert [best(lexicon, word) for word in range(WORDS)] == [OFFSET + word for word in range(WORDS)]


def test_probabilities_of_a_piece_sum_to_one_and_entries_are_ordered() -> None:
    lexicon = learn_lexicon(planted(50))
    assert np.allclose(np.bincount(lexicon.student, lexicon.probability), 1.0)
    order = list(zip(lexicon.student.tolist(), lexicon.teacher.tolist(), strict=True))
    assert order == sorted(set(order))


def test_one_iteration_by_hand() -> None:
    # "a b" <-> "x y" and "a" <-> "x"; each teacher word is shared by the student words and the empty one.
    lexicon = learn_lexicon([([0, 1], [5, 6]), ([0], [5])], iterations=1)
    of = dict(
        zip(zip(lexicon.student.tolist(), lexicon.teacher.tolist(), strict=True), lexicon.probability, strict=True)
    )
    assert of[5, 0] == pytest.approx((1 / 3 + 1 / 2) / (1 / 3 + 1 / 2 + 1 / 3))
    assert of[6, 0] == of[6, 1] == pytest.approx(0.5)


def test_iterations_sharpen() -> None:
    def right(iterations: int) -> float:
        lexicon = learn_lexicon(planted(), iterations=iterations)
        return float(lexicon.probability[lexicon.teacher == lexicon.student + OFFSET].mean())

    assert right(1) < right(2) < right(4)


def test_same_pairs_same_bits() -> None:
    first, second = learn_lexicon(iter(planted())), learn_lexicon(planted())
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_reading_stops_at_the_bound() -> None:
    pairs = planted(10, length=5)  # 5 x (5 + 1) links each
    whole, bounded = learn_lexicon(pairs[:3]), learn_lexicon(pairs, max_links=3 * 30 + 29)
    assert np.array_equal(whole.probability, bounded.probability)


@pytest.mark.parametrize("pairs", [[], [([], [1, 2])], [([1], [])]])
def test_nothing_to_learn(pairs: list[tuple[list[int], list[int]]]) -> None:
    lexicon = learn_lexicon(pairs)
    pieces, vectors = expected_vectors(lexicon, torch.eye(3))
    assert len(pieces) == 0
    assert vectors.shape == (0, 3)


def test_vectors_are_expectations() -> None:
    lexicon = Lexicon(np.array([2, 2, 7]), np.array([0, 3, 1]), np.array([0.25, 0.75, 1.0]))
    table = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    pieces, vectors = expected_vectors(lexicon, table)
    assert pieces.tolist() == [2, 7]
    torch.testing.assert_close(vectors, torch.stack((0.25 * table[0] + 0.75 * table[3], table[1])))
