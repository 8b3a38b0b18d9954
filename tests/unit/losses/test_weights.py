"""What tokens count, by hand."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize

from optical_scale.batch import TokenStates
from optical_scale.losses.contrastive import Contrastive
from optical_scale.losses.list_kl import ListKL
from optical_scale.losses.mse import PooledMSE
from optical_scale.losses.weights import embeddings, query_tokens, token_weights


def states(idf=((1.0, 3.0, 9.0), (0.0, 0.0, 9.0))):
    """Two texts of two tokens, the third place is padding."""
    x_BTD = torch.tensor([[[3.0, 4.0], [0.0, 1.0], [7.0, 7.0]], [[1.0, 0.0], [0.0, 3.0], [7.0, 7.0]]])
    mask_BT = torch.tensor([[True, True, False]] * 2)
    return TokenStates(x_BTD, mask_BT, mask_BT, None if idf is None else torch.tensor(idf))


def test_shares_are_in_proportion_and_sum_to_one():
    batch = states()
    assert token_weights(batch, "uniform", batch.mask_BT) is None
    idf_BT = token_weights(batch, "idf", batch.mask_BT)
    # The second text has no weight at its tokens, so none is preferred.
    torch.testing.assert_close(idf_BT, torch.tensor([[0.25, 0.75, 0.0], [0.5, 0.5, 0.0]]))
    norm_BT = token_weights(batch, "norm", batch.mask_BT)
    torch.testing.assert_close(norm_BT, torch.tensor([[5 / 6, 1 / 6, 0.0], [0.25, 0.75, 0.0]]))


def test_attention_is_a_softmax_of_cosines_with_the_sentence():
    batch = states()
    attention_BT = token_weights(batch, "attention", batch.mask_BT)
    # Unit vectors (0.6, 0.8) and (0, 1), whose mean points to (0.6, 1.8); two orthogonal ones are equally near theirs.
    cosines = torch.tensor([0.6 * 0.6 + 0.8 * 1.8, 1.8]) / 3.6**0.5
    expected = torch.tensor([[*torch.softmax(cosines / 0.2, 0), 0.0], [0.5, 0.5, 0.0]])
    torch.testing.assert_close(attention_BT, expected)
    batch.x_BTD[:, 2] = float("nan")
    torch.testing.assert_close(token_weights(batch, "attention", batch.mask_BT), expected)


def test_patches_have_no_frequency():
    batch = states(idf=None)
    assert token_weights(batch, "idf", batch.mask_BT) is None
    assert torch.equal(embeddings(batch, "idf"), batch.pooled())


def test_embeddings_are_weighted_means():
    expected = normalize(torch.tensor([[0.25 * 3.0, 0.25 * 4.0 + 0.75], [0.5, 1.5]]), dim=-1)
    torch.testing.assert_close(embeddings(states(), "idf"), expected)
    assert torch.equal(embeddings(states(), "uniform"), states().pooled())


def test_a_weighted_mean_is_what_mse_compares():
    teacher, student = states(), replace(states(), x_BTD=states().x_BTD.roll(1, 0))
    distance = (embeddings(teacher, "idf") - embeddings(student, "idf")).square().sum()
    assert PooledMSE("idf")(teacher, student).sum.item() == pytest.approx(distance.item())
    assert PooledMSE()(teacher, student).sum.item() != pytest.approx(distance.item(), rel=1e-3)


@pytest.mark.parametrize("loss", [ListKL, lambda **keys: Contrastive(dense=0.0, late_interaction=1.0, **keys)])
def test_equal_frequencies_are_no_weights_in_maxsim(loss):
    teacher = states(idf=((2.0, 2.0, 0.0), (5.0, 5.0, 0.0)))
    student = replace(teacher, x_BTD=teacher.x_BTD.roll(1, 0))
    plain, same = (loss(token_weights=kind)(teacher, student).sum for kind in ("uniform", "idf"))
    torch.testing.assert_close(same, plain)
    rare = replace(student, idf_BT=torch.tensor([[1.0, 9.0, 0.0], [9.0, 1.0, 0.0]]))
    assert not torch.isclose(loss(token_weights="idf")(teacher, rare).sum, plain, rtol=1e-3)


def test_a_query_is_scored_by_its_rare_tokens():
    x_BTD, weight_BT = query_tokens(states(), "idf")
    torch.testing.assert_close(x_BTD.norm(dim=-1), torch.ones(2, 3))
    torch.testing.assert_close(weight_BT[0], torch.tensor([0.25, 0.75, 0.0]))
    assert query_tokens(states(), "uniform")[1].dtype == torch.bool
