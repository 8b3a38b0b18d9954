import pytest
import torch

from optical_scale.errors import EvaluationError
from optical_scale.evaluation.word_alignment import (
    GoldAlignment,
    alignment_quality,
    choose_links,
    read_naacl,
    read_pharaoh,
    word_mass,
)


def links(*pairs):
    return frozenset(pairs)


def test_error_rate_of_a_worked_example():
    gold = [GoldAlignment(links((0, 0), (1, 1)), links((0, 0), (1, 1), (2, 1)))]
    quality = alignment_quality([links((0, 0), (2, 1), (2, 2))], gold)
    assert quality.aer == pytest.approx(1 - (1 + 2) / (3 + 2))
    assert (quality.precision, quality.recall) == (pytest.approx(2 / 3), 0.5)
    assert alignment_quality([gold[0].sure], gold).aer == 0
    assert alignment_quality([gold[0].possible], gold).aer == 0
    with pytest.raises(EvaluationError, match="as many"):
        alignment_quality([], gold)
    with pytest.raises(EvaluationError, match="nothing to compare"):
        alignment_quality([links()], gold)


def test_both_formats_say_the_same(tmp_path):
    (tmp_path / "p").write_text("0-0 1?2\n3p1 2-2\n")
    (tmp_path / "n").write_text("1 1 1 S\n1 2 3 P\n2 4 2 P 0.5\n2 3 3\n")
    expected = [
        GoldAlignment(links((0, 0)), links((0, 0), (1, 2))),
        GoldAlignment(links((2, 2)), links((2, 2), (3, 1))),
    ]
    assert list(read_pharaoh(tmp_path / "p")) == expected
    assert read_naacl(tmp_path / "n") == dict(enumerate(expected, start=1))


@pytest.mark.parametrize(("read", "text"), [(read_pharaoh, "0-0 1:2"), (read_naacl, "1 0 1 S"), (read_naacl, "1 2")])
def test_other_links_are_refused(tmp_path, read, text):
    (tmp_path / "f").write_text(text)
    with pytest.raises(EvaluationError, match=r"f:1: .*expected"):
        list(read(tmp_path / "f"))


def test_mass_of_pieces_adds_up_to_words_and_special_tokens_are_left_out():
    plan_NM = torch.tensor([[9.0, 9, 9], [9, 0.1, 0.2], [9, 0.3, 0.1], [9, 0.0, 0.3]])
    mass_WV = word_mass(plan_NM, [None, 0, 0, 1], [None, 0, 1])
    torch.testing.assert_close(mass_WV, torch.tensor([[0.4, 0.3], [0.0, 0.3]]))
    assert choose_links(mass_WV) == links((0, 0))
    assert choose_links(mass_WV, threshold=0.45) == links((0, 0), (1, 1))
    with pytest.raises(EvaluationError, match="tokens"):
        word_mass(plan_NM, [0], [0])
    with pytest.raises(EvaluationError, match="no word"):
        word_mass(plan_NM, [None] * 4, [0, 0, 0])


def test_words_without_mass_get_no_link():
    assert choose_links(torch.zeros(2, 3)) == links()
    assert choose_links(torch.zeros(2, 3), threshold=0.1) == links()
