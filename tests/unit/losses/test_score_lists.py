import math

import pytest
import torch

from optical_scale.batch import Queries, TokenStates
from optical_scale.losses.contrastive import Contrastive
from optical_scale.losses.objective import Moment, Passages
from optical_scale.losses.score_lists import MarginMSE, ScoreKL

X, Y, NAN = [1.0, 0.0], [0.0, 1.0], float("nan")


def texts(*rows):
    """One token vector per text."""
    x_BTD = torch.tensor(rows).view(-1, 1, 2)
    mask_BT = torch.ones(x_BTD.shape[:2], dtype=torch.bool)
    return TokenStates(x_BTD, mask_BT, mask_BT)


def moment(negatives, owners, scores=(NAN, NAN), negative_scores=None, queries=(0, 1), passages=(10, 11), known=None):
    """Two pairs with their negatives; texts are known by numbers."""
    known = known or [20 + at for at in range(len(owners))]
    numbers = (torch.tensor(values) for values in (queries, passages, known, owners))
    recorded = torch.tensor(negative_scores or [NAN] * len(owners))
    return Moment(passages=Passages(negatives, Queries(*numbers, torch.tensor(scores), recorded), (len(owners),)))


@pytest.mark.parametrize("kind", ["dense", "maxsim"])
def test_kl_of_known_lists(kind):
    # Cosines 1 and 0 at temperature 1 against recorded 3 and 1 at temperature 2, and a list of one.
    now = moment(texts(Y), [0], (3.0, 7.0), [1.0])
    output = ScoreKL(1.0, 2.0, kind).at(now)(texts(X, X), texts(X, X))
    wanted, found = 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(-1))
    assert output.sum.item() == pytest.approx(
        wanted * math.log(wanted / found) + (1 - wanted) * math.log((1 - wanted) / (1 - found)), abs=1e-6
    )
    sharper = ScoreKL(0.5, 2.0, kind).at(now)(texts(X, X), texts(X, X))
    found = 1 / (1 + math.exp(-2))
    assert sharper.sum.item() == pytest.approx(
        wanted * math.log(wanted / found) + (1 - wanted) * math.log((1 - wanted) / (1 - found)), rel=1e-5
    )
    # The second pair has no negative, so it is no list.
    assert (output.weight, output.metrics["same_first"].item(), output.metrics["scored"].item()) == (2, 1.0, 1.0)


@pytest.mark.parametrize("kind", ["dense", "maxsim"])
def test_margins_are_averaged_over_the_negatives_of_a_query(kind):
    # The first query's margins are 1 and 0, recorded 3 and -2; the second's is 1, recorded 1.
    now = moment(texts(Y, X, Y), [0, 0, 1], (4.0, 2.0), [1.0, 6.0, 1.0])
    output = MarginMSE(1.0, kind).at(now)(texts(X, X), texts(X, X))
    assert output.sum.item() == pytest.approx((4 + 4) / 2 + 0)
    assert output.metrics["same_order"].item() == pytest.approx(2.0)
    half = MarginMSE(0.5, kind).at(now)(texts(X, X), texts(X, X))
    assert half.sum.item() == pytest.approx((1 + 4) / 2 + 1)


@pytest.mark.parametrize("weights", [{"dense": 1.0}, {"dense": 0.0, "late_interaction": 1.0}])
def test_hard_negatives_are_in_the_denominator_of_every_query(weights):
    loss = Contrastive(0.5, symmetric=False, **weights)
    # Query 0 at X: its passage and query 1's; then also two negatives at X, one its own and one the other's.
    plain = loss(texts(X, Y), texts(X, Y))
    assert plain.sum.item() == pytest.approx(2 * math.log1p(math.exp(-2)))
    hard = loss.at(moment(texts(X, X), [0, 1]))(texts(X, Y), texts(X, Y))
    assert hard.sum.item() == pytest.approx(math.log(3 + math.exp(-2)) + math.log1p(3 * math.exp(-2)), rel=1e-5)
    both = Contrastive(0.5, **weights).at(moment(texts(X, X), [0, 1]))(texts(X, Y), texts(X, Y))
    assert both.sum.item() == pytest.approx((hard.sum.item() + plain.sum.item()) / 2, rel=1e-5)


def test_what_answers_a_query_in_any_pair_is_no_negative_of_it():
    loss = Contrastive(0.5, symmetric=False)
    teacher, student, negatives = texts(X, Y), texts(X, X), texts(X)
    separate = loss.at(moment(negatives, [1]))(teacher, student)
    # Both pairs ask the same: then neither passage is a negative of the other, and only the hard one is left.
    same = loss.at(moment(negatives, [1], queries=(0, 0)))(teacher, student)
    assert same.sum.item() == pytest.approx(math.log(2) + math.log(1 + math.exp(2)), rel=1e-5)
    assert same.sum < separate.sum
    # The negative of query 1 is the text that answers query 0: hidden from query 0 only.
    answer = loss.at(moment(negatives, [1], known=[10]))(teacher, student)
    expected = math.log(1 + math.exp(-2)) + math.log(1 + 2 * math.exp(2))
    assert answer.sum.item() == pytest.approx(expected, rel=1e-5)


def test_equal_passages_are_no_negatives_though_dropout_moves_them_apart():
    loss = Contrastive(0.5)
    assert loss(texts(X, Y), texts(X, X)).sum.item() > 1
    now = moment(texts(X).first(0), [], passages=(10, 10))
    output = loss.at(now)(texts(X, Y), texts(X, X))
    assert output.sum.item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("loss", [ScoreKL(1.0), ScoreKL(1.0, scores="dense"), MarginMSE(1.0), MarginMSE(1.0, "dense")])
def test_pairs_without_scores_or_negatives_learn_nothing_and_spoil_nothing(loss):
    passages, queries = texts(X, X, Y), texts(X, Y, Y)
    queries.x_BTD.requires_grad_()
    # Pair 0 has a scored negative, pair 1 one without a score, pair 2 none.
    known = Queries(*map(torch.tensor, ([0, 1, 2], [3, 4, 5], [6, 7], [0, 1], [5.0, NAN, 5.0], [1.0, NAN])))
    output = loss.at(Moment(passages=Passages(texts(Y, Y), known, (2,))))(passages, queries)
    output.sum.backward()
    alone = loss.at(moment(texts(Y), [0], (5.0, NAN), [1.0]))(passages.first(2), texts(X, Y))
    assert output.sum.item() == pytest.approx(alone.sum.item())
    assert (output.weight, output.metrics["scored"].item()) == (3, 1.0)
    assert queries.x_BTD.grad.isfinite().all()
    assert not queries.x_BTD.grad[1:].any()
