import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from evaluation.encoders import word_encoder
from optical_scale.batch import TokenStates
from optical_scale.errors import EvaluationError
from optical_scale.evaluation.bitext_retrieval import evaluate_bitext
from optical_scale.evaluation.encoding import EncodedSet, encode, share_of
from optical_scale.records import TextPair
from optical_scale.runtime.world import World

TEXTS = ["a b c", "d", "e f g h i", "a d", "b b", "i h g", "c"]


def test_each_item_keeps_its_own_tokens_whatever_the_batch_size():
    direct = word_encoder()(TEXTS)
    for batch_size in (1, 3, 100):
        encoded = encode(TEXTS, word_encoder(), batch_size=batch_size, world=World())
        assert encoded.lengths.tolist() == [len(text.split()) for text in TEXTS]
        for i in range(len(TEXTS)):
            expected_TD = direct.normalized()[i][direct.mask_BT[i]]
            torch.testing.assert_close(encoded.span(i, i + 1).x_TD, expected_TD)
        torch.testing.assert_close(encoded.dense_ID, direct.pooled())


def test_vectors_have_unit_length_and_carry_no_gradient():
    weight = torch.ones(1, requires_grad=True)

    def trained(texts):
        states = word_encoder()(texts)
        return TokenStates(states.x_BTD * weight, states.mask_BT, states.attention_BT)

    encoded = encode(TEXTS, trained, batch_size=2, world=World())
    torch.testing.assert_close(encoded.x_TD.norm(dim=1), torch.ones(len(encoded.x_TD)))
    torch.testing.assert_close(encoded.dense_ID.norm(dim=1), torch.ones(len(TEXTS)))
    assert not encoded.x_TD.requires_grad
    assert not encoded.dense_ID.requires_grad


def test_half_precision_storage_is_close():
    exact = encode(TEXTS, word_encoder(), batch_size=4, world=World())
    half = encode(TEXTS, word_encoder(), batch_size=4, world=World(), dtype=torch.float16)
    assert half.x_TD.dtype == torch.float16
    torch.testing.assert_close(half.x_TD.float(), exact.x_TD, atol=1e-3, rtol=0)


@pytest.mark.parametrize(("items", "size"), [(1, 1), (7, 2), (8, 2), (2, 5), (9, 4)])
def test_shares_are_equal_contiguous_and_cover_everything(items, size):
    shares = [share_of(items, World(rank, size, rank, size)) for rank in range(size)]
    assert len({len(share) for share in shares}) == 1
    joined = [position for share in shares for position in share]
    assert joined == list(range(len(joined)))
    assert items <= len(joined) < items + size


def test_picking_items_copies_their_tokens():
    encoded = encode(TEXTS, word_encoder(), batch_size=4, world=World())
    picked = encoded.pick([2, 0, 2])
    expected_TD = torch.cat([encoded.span(i, i + 1).x_TD for i in (2, 0, 2)])
    torch.testing.assert_close(picked.x_TD, expected_TD, atol=0, rtol=0)
    assert picked.offsets.tolist() == [0, 5, 8, 13]
    assert encoded.pick(range(len(TEXTS))) is encoded


def test_an_empty_collection_is_refused():
    with pytest.raises(EvaluationError, match="empty"):
        encode([], word_encoder(), batch_size=4, world=World())


def test_an_item_without_tokens_is_named():
    with pytest.raises(EvaluationError, match=r"1 of 3 items .* item 1 \(' '\)"):
        encode(["a", " ", "b"], word_encoder(), batch_size=4, world=World())


def test_non_finite_vectors_are_refused():
    def broken(texts):
        states = word_encoder()(texts)
        return TokenStates(states.x_BTD * float("nan"), states.mask_BT, states.attention_BT)

    with pytest.raises(EvaluationError, match="non-finite"):
        encode(TEXTS, broken, batch_size=4, world=World())


def _pairs() -> list[TextPair]:
    return [TextPair(f"k{i}", "sw", text, f"xx:{text[::-1]}") for i, text in enumerate(TEXTS)]


def _rank_main(rank: int, port: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    world = World(rank, 2, rank, 2)
    calls: list[int] = []

    def counting(texts):
        calls.append(len(texts))
        return word_encoder()(texts)

    encoded = encode(TEXTS, counting, batch_size=3, world=world)
    single = encode(TEXTS[:1], word_encoder(), batch_size=3, world=world)
    results = evaluate_bitext({"sw": _pairs()}, word_encoder(), word_encoder(), batch_size=2, world=world)
    tensors = [(s.x_TD, s.offsets, s.dense_ID) for s in (encoded, single)]
    torch.save((calls, tensors, [r.reciprocal_ranks.tolist() for r in results]), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.distributed
def test_two_processes_hold_the_same_set_as_one(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(_rank_main, args=(port, str(tmp_path)), nprocs=2)
    alone = [encode(items, word_encoder(), batch_size=3, world=World()) for items in (TEXTS, TEXTS[:1])]
    results = evaluate_bitext({"sw": _pairs()}, word_encoder(), word_encoder(), batch_size=2, world=World())
    for rank in range(2):
        calls, tensors, values = torch.load(tmp_path / f"{rank}.pt")
        assert calls == [3, 1], "every rank encodes ceil(7 / 2) items in the same number of passes"
        for expected, parts in zip(alone, tensors, strict=True):
            found = EncodedSet(*parts)
            torch.testing.assert_close(found.x_TD, expected.x_TD)
            torch.testing.assert_close(found.offsets, expected.offsets)
            torch.testing.assert_close(found.dense_ID, expected.dense_ID)
        assert values == [r.reciprocal_ranks.tolist() for r in results]
