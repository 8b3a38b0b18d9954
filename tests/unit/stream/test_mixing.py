import math
import random
from collections import Counter
from fractions import Fraction

import pytest

from optical_scale.errors import StreamError
from optical_scale.stream.mixing import Draw, Mixture, Portion

BOUND = 1.68


def mixture(*pairs, **settings):
    return Mixture([Portion(f"s{i:02}", f"l{i:02}", n) for i, n in enumerate(pairs)], **settings)


def draws(mix, start, stop):
    return [mix.draw(position) for position in range(start, stop)]


def random_mixtures(count):
    dice = random.Random(0)
    for _ in range(count):
        pairs = [int(10 ** dice.uniform(0, 6)) for _ in range(dice.randint(1, 25))]
        yield mixture(*pairs, temperature=dice.choice([0.5, 1, 2, 3.3, 5, math.inf]))


def worst_miss(mix, draws):
    return max(abs(count - mix.shares[lang] * draws) for lang, count in mix.language_counts(draws).items())


@pytest.mark.parametrize("mix", list(random_mixtures(12)))
def test_draws_number_each_source_and_agree_with_counts(mix):
    so_far = Counter()
    for position, draw in enumerate(draws(mix, 0, 700)):
        assert draw.k == so_far[draw.source] == mix.counts(position)[draw.source]
        so_far[draw.source] += 1
    assert mix.counts(700) == tuple(so_far[source] for source in range(len(mix.portions)))


@pytest.mark.parametrize("mix", [*random_mixtures(12), mixture(7)])
def test_a_range_is_a_slice_of_the_whole(mix):
    whole = draws(mix, 0, 400)
    for start, stop in [(0, 0), (0, 1), (17, 18), (13, 399), (400, 400)]:
        assert mix.owners(start, stop).tolist() == [draw.source for draw in whole[start:stop]]
    far = 10**15 + 7
    assert mix.owners(far, far + 50).tolist() == [draw.source for draw in draws(mix, far, far + 50)]


def test_counts_stay_near_the_exact_shares_at_every_position():
    for mix in random_mixtures(40):
        assert all(worst_miss(mix, draws) < BOUND for draws in range(300))
        assert all(worst_miss(mix, random.Random(draws).randrange(10**12)) < BOUND for draws in range(100))


def test_counts_stay_near_the_exact_shares_for_fibonacci_weights():
    # The unbalanced extreme of Huffman trees, where the proof's bound is approached.
    sizes = [1, 1]
    while len(sizes) < 25:
        sizes.append(sizes[-1] + sizes[-2])
    mix = mixture(*[97 * size + i % 5 for i, size in enumerate(sizes)])
    assert max(worst_miss(mix, draws) for draws in range(0, 10**6, 331)) < BOUND


def test_two_languages_are_exact_to_half_a_draw():
    mix = mixture(3, 7)
    assert max(worst_miss(mix, draws) for draws in range(1000)) <= Fraction(1, 2)
    assert mix.counts(10) == (3, 7)


def test_many_rare_languages_do_not_bunch():
    mix = mixture(*[1] * 100, 100)
    heavy = [draw.source == 100 for draw in draws(mix, 0, 400)]
    assert all(abs(sum(heavy[:g]) - g / 2) <= 1 for g in range(400))


def test_whole_cycles_are_exact():
    mix = mixture(5, 11, 2, 30)
    assert mix.counts(48 * 10**9) == (5 * 10**9, 11 * 10**9, 2 * 10**9, 30 * 10**9)


def test_temperature_one_is_proportional_and_infinity_uniform():
    assert mixture(1, 2, 5).shares == {"l00": Fraction(1, 8), "l01": Fraction(1, 4), "l02": Fraction(5, 8)}
    assert set(mixture(1, 2, 5, temperature=math.inf).shares.values()) == {Fraction(1, 3)}


@pytest.mark.parametrize("temperature", [0.5, 1.5, 2, 5, 100])
def test_temperature_rule(temperature):
    pairs = (7, 1000, 123_456_789)
    mix = mixture(*pairs, temperature=temperature)
    powers = [n ** (1 / temperature) for n in pairs]
    assert [float(share) for share in mix.shares.values()] == pytest.approx(
        [p / sum(powers) for p in powers], rel=1e-12
    )


def test_temperature_weights_are_the_same_integers_on_every_machine():
    # T = 2 has an integer oracle: 10^30·√(7/1000), rounded to nearest.
    exact = math.isqrt(4 * 7 * 10**60 // 1000)
    expected = (exact + 1) // 2
    assert mixture(7, 1000, temperature=2).shares["l00"] == Fraction(expected, expected + 10**30)


def test_weights_are_taken_as_written():
    mix = mixture(10, 10, 10, weights={"l00": 0.1, "l01": 0.2, "l02": 1})
    assert mix.shares == {"l00": Fraction(1, 13), "l01": Fraction(2, 13), "l02": Fraction(10, 13)}


def test_sources_of_one_language_share_it_by_size():
    mix = Mixture([Portion("a", "sw", 10), Portion("b", "de", 60), Portion("c", "sw", 30)], math.inf)
    assert mix.shares == {"de": Fraction(1, 2), "sw": Fraction(1, 2)}
    assert mix.counts(80_000) == (10_000, 40_000, 30_000)
    assert mix.language_counts(8) == {"de": 4, "sw": 4}


def test_the_order_of_the_sources_does_not_matter():
    portions = [Portion("a", "sw", 10), Portion("b", "de", 10), Portion("c", "sw", 30), Portion("d", "th", 10)]
    there, back = Mixture(portions, 2.0), Mixture(portions[::-1], 2.0)
    for one, other in zip(draws(there, 0, 500), draws(back, 0, 500), strict=True):
        assert portions[one.source].name == portions[::-1][other.source].name
        assert one.k == other.k


def test_sequence_is_frozen():
    # Checkpoints of older releases point into this sequence: a change here needs a new version of the stream state.
    assert [draw.source for draw in draws(mixture(1, 2, 5), 0, 16)] == [2, 1, 2, 0, 2, 2, 1, 2, 2, 1, 2, 0, 2, 2, 1, 2]


def test_work_grows_with_the_depth_of_the_tree_only():
    mix = mixture(*[10**9 // (i + 1) for i in range(100)], temperature=3)
    depths = []

    def descend(node, depth):
        if isinstance(node, int):
            depths.append(depth)
        else:
            descend(node.left, depth + 1)
            descend(node.right, depth + 1)

    descend(mix._root, 0)
    rarest = min(mix.shares.values())
    assert len(depths) == 100
    assert max(depths) <= math.log(1 / rarest, (1 + math.sqrt(5)) / 2) + 1
    far = mix.draw(10**15)
    assert far == Draw(far.source, mix.counts(10**15)[far.source])


def test_exposure_counts_epochs():
    rows = mixture(100, 300, weights={"l00": 1, "l01": 1}).exposure(1000)
    assert [(row.language, row.pairs, row.draws, row.epochs) for row in rows] == [
        ("l00", 100, 500, 5.0),
        ("l01", 300, 500, 500 / 300),
    ]
    assert rows[0].probability == 0.5


@pytest.mark.parametrize(
    ("portions", "settings", "message"),
    [
        ([], {}, "list of sources is empty"),
        ([Portion("a", "sw", 0)], {}, "'a' \\(sw\\) has no samples"),
        ([Portion("a", "sw", 1), Portion("a", "de", 1)], {}, "two sources are called 'a'"),
        ([Portion("a", "sw", 1)], {"temperature": 0.0}, "temperature is 0"),
        ([Portion("a", "sw", 1)], {"temperature": math.nan}, "temperature is nan"),
        ([Portion("a", "sw", 1)], {"temperature": 2.0, "weights": {"sw": 1}}, "both weights and temperature 2"),
        ([Portion("a", "sw", 1)], {"weights": {"de": 1}}, "missing: sw; unknown: de"),
        ([Portion("a", "sw", 1)], {"weights": {"sw": 0}}, "weight of sw is 0"),
        ([Portion("a", "sw", 1)], {"weights": {"sw": math.inf}}, "weight of sw is inf"),
    ],
)
def test_impossible_mixtures_are_refused(portions, settings, message):
    with pytest.raises(StreamError, match=message):
        Mixture(portions, **settings)
