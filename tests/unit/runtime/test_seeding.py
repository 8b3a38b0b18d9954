import pytest

from optical_scale.runtime.seeding import derive_seed


@pytest.mark.parametrize(
    ("words", "seed"),
    [((0,), 4246866556266386882), ((0, "order", "sw", 3), 4785316078282237470), ((7, "mixing"), 3869346699346004651)],
)
def test_seeds_never_change(words, seed):
    # These order the samples of every run; other values would break the resumption of runs made before.
    assert derive_seed(*words) == seed


def test_every_word_matters():
    purposes = [(), ("a",), ("b",), ("a", "b"), ("ab",), ("b", "a"), ("a", 1), ("a", 11), ("a", 1, 1)]
    seeds = {derive_seed(seed, *purpose) for seed in (0, 1) for purpose in purposes}
    assert len(seeds) == 2 * len(purposes)
    assert all(0 <= seed < 2**63 for seed in seeds)
