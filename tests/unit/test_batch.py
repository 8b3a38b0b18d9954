import pytest
import torch

from optical_scale.batch import PairBatch, PatchBatch, TokenBatch, TokenStates


def tokens(rows=2, length=3):
    ids_BT = torch.arange(rows * length).reshape(rows, length)
    mask_BT = torch.ones_like(ids_BT, dtype=torch.bool)
    return TokenBatch(ids_BT, mask_BT, mask_BT, ids_BT.float())


def states(x_BTD, attention_BT):
    return TokenStates(x_BTD, attention_BT, attention_BT)


def test_the_dense_embedding_is_the_mean_over_real_tokens():
    x_BTD = torch.tensor([[[4.0, 0.0], [0.0, 2.0], [-9.0, -9.0]]])
    pooled_BD = states(x_BTD, torch.tensor([[True, True, False]])).pooled()
    expected = torch.tensor([[2.0, 1.0]]) / 5**0.5
    torch.testing.assert_close(pooled_BD, expected)


def test_special_tokens_count_in_the_mean_only():
    x_BTD = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    both = TokenStates(x_BTD, torch.tensor([[True, False]]), torch.tensor([[True, True]]))
    torch.testing.assert_close(both.pooled(), torch.full((1, 2), 0.5**0.5))


def test_embeddings_are_unit_length_float32_and_finite_for_zero_vectors():
    x_BTD = torch.randn(2, 3, 8).bfloat16()
    x_BTD[1] = 0
    found = states(x_BTD, torch.tensor([[True, True, True], [False, False, False]]))
    for vectors in (found.normalized()[0], found.pooled()[:1]):
        assert vectors.dtype == torch.float32
        torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(len(vectors)))
    assert not found.pooled()[1].any()
    assert not found.normalized()[1].any()


def test_detach_keeps_values_and_masks():
    x_BTD = torch.randn(1, 2, 3, requires_grad=True)
    attached = states(x_BTD * 2, torch.ones(1, 2, dtype=torch.bool))
    detached = attached.detach()
    assert not detached.x_BTD.requires_grad
    assert torch.equal(detached.x_BTD, attached.x_BTD)
    assert detached.mask_BT is attached.mask_BT
    assert len(detached) == 1


@pytest.mark.parametrize("target", [tokens(), PatchBatch(torch.zeros(2, 3, 4, 4))])
def test_moving_a_batch_moves_every_tensor(target):
    batch = PairBatch(tokens(), target, ("sw", "de"), ("a", "b"))
    moved = batch.to("meta")
    for side in (moved.source, moved.target):
        tensors = [getattr(side, name) for name in type(side).__slots__]
        assert all(tensor.device.type == "meta" for tensor in tensors)
        assert len(side) == 2
    assert (moved.languages, moved.keys, len(moved)) == (("sw", "de"), ("a", "b"), 2)
    assert batch.source.ids_BT.device.type == "cpu"


def test_parts_keep_the_weights_of_their_tokens():
    batch = tokens(3)
    whole = TokenStates(torch.randn(3, 3, 2), batch.mask_BT, batch.attention_BT, batch.idf_BT)
    assert torch.equal(whole.part(slice(1, 3)).idf_BT, batch.idf_BT[1:])
    assert torch.equal(whole.first(1).detach().idf_BT, batch.idf_BT[:1])
