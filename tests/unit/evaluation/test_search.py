import socket
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from evaluation.encoders import word_encoder
from optical_scale.batch import TokenStates
from optical_scale.errors import EvaluationError
from optical_scale.evaluation import search as search_module
from optical_scale.evaluation.encoding import EncodedSet, encode
from optical_scale.evaluation.passages import split_passages
from optical_scale.evaluation.scoring import maxsim
from optical_scale.evaluation.search import rerank, search_matrices
from optical_scale.evaluation.token_matrices import TokenMatrices, write_token_matrices
from optical_scale.runtime.world import World

WORDS = [chr(97 + n) for n in range(20)]


def texts(count, seed, longest=12):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(1, longest))) for _ in range(count)]


def write(folder, documents, **settings):
    return write_token_matrices(
        folder, documents, word_encoder(), source="toy", batch_size=16, world=World(), **settings
    )


@pytest.mark.parametrize("mode", ["dense", "late_interaction"])
def test_blocks_give_the_order_of_the_full_matrix_of_scores(tmp_path, monkeypatch, mode):
    monkeypatch.setitem(search_module.TOKENS_PER_BLOCK, "cpu", 50)
    documents = texts(300, seed=0)
    matrices = write(tmp_path / "m", documents)
    queries = encode(texts(9, seed=1), word_encoder(), batch_size=4, world=World())
    encoded = encode(documents, word_encoder(), batch_size=64, world=World())
    half = EncodedSet(encoded.x_TD.half(), encoded.offsets, encoded.dense_ID)
    full_QK = queries.dense_ID @ half.dense_ID.T if mode == "dense" else maxsim(queries, half)
    fixed_QK = (full_QK.double() * 10 ** (6 if mode == "dense" else 5)).round().long().numpy()
    hits = search_matrices(queries, matrices, mode, top_k=20)
    for row, (found, scores) in enumerate(zip(hits.positions_QK, hits.scores_QK, strict=True)):
        expected = sorted(range(300), key=lambda at: (fixed_QK[row, at], at), reverse=True)[:20]
        assert found.tolist() == expected
        np.testing.assert_allclose(scores, full_QK[row, found], atol=1e-5)


@pytest.mark.parametrize("mode", ["dense", "late_interaction"])
def test_a_long_document_is_as_good_as_its_best_passage(tmp_path, mode):
    documents = texts(40, seed=2, longest=60)
    matrices = write(tmp_path / "m", documents, passage_words=7)
    assert matrices.passages > matrices.documents == 40
    queries = encode(["a b c", "q"], word_encoder(), batch_size=4, world=World())
    hits = search_matrices(queries, matrices, mode, top_k=100)
    assert hits.positions_QK.shape == (2, 40)
    for row in range(2):
        for position, score in zip(hits.positions_QK[row], hits.scores_QK[row], strict=True):
            passages = encode(split_passages(documents[position], 7), word_encoder(), batch_size=9, world=World())
            one = queries.span(row, row + 1)
            every = one.dense_ID @ passages.dense_ID.T if mode == "dense" else maxsim(one, passages)
            assert score == pytest.approx(float(every.max()), abs=2e-3)  # half precision on disk


def test_reranking_orders_the_given_documents_as_the_search_does(tmp_path):
    matrices = write(tmp_path / "m", texts(50, seed=3))
    queries = encode(texts(3, seed=4), word_encoder(), batch_size=4, world=World())
    best = search_matrices(queries, matrices, "late_interaction", top_k=50)
    candidates = [[3, 9, 27], [8], []]
    found = rerank(queries, matrices, candidates, "late_interaction")
    for row, wanted in enumerate(candidates):
        expected = [position for position in best.positions_QK[row] if position in wanted]
        assert [position for position in found.positions_QK[row] if position >= 0] == expected
    with pytest.raises(EvaluationError, match="outside"):
        rerank(queries, matrices, [[50], [], []], "dense")


def test_bfloat16_on_disk_is_close_and_half_precision_closer(tmp_path):
    documents = texts(20, seed=5)
    exact = encode(documents, word_encoder(), batch_size=20, world=World()).x_TD
    for precision, error in (("float16", 5e-4), ("bfloat16", 4e-3)):
        [block] = write(tmp_path / precision, documents, precision=precision).blocks(10**6, World())
        torch.testing.assert_close(block.passages.x_TD.float(), exact, atol=error, rtol=0)


def test_a_failure_leaves_no_folder_and_damage_is_noticed(tmp_path):
    def broken(_):
        raise EvaluationError("no memory")

    with pytest.raises(EvaluationError, match="no memory"):
        write_token_matrices(tmp_path / "m", ["a"], broken, source="", batch_size=1, world=World())
    assert list(tmp_path.iterdir()) == []
    write(tmp_path / "m", texts(5, seed=6))
    with (tmp_path / "m" / "tokens.0.bin").open("ab") as file:
        file.write(b"xx")
    with pytest.raises(EvaluationError, match="delete the folder"):
        TokenMatrices(tmp_path / "m")
    with pytest.raises(EvaluationError, match="no finished token matrices"):
        TokenMatrices(tmp_path)


def test_vectors_of_another_width_are_refused(tmp_path):
    matrices = write(tmp_path / "m", texts(5, seed=6))
    wide = encode(
        ["a"],
        lambda items: TokenStates(*[torch.ones(1, 1, 3), torch.ones(1, 1).bool(), torch.ones(1, 1).bool()]),
        batch_size=1,
        world=World(),
    )
    with pytest.raises(EvaluationError, match="one space"):
        search_matrices(wide, matrices, "dense", top_k=1)


def test_passages_overlap_by_half_and_cover_every_word():
    text = " ".join(f"w{n}" for n in range(10))
    assert split_passages(text, 4) == ["w0 w1 w2 w3", "w2 w3 w4 w5", "w4 w5 w6 w7", "w6 w7 w8 w9"]
    assert split_passages(text, None) == [text]
    assert split_passages(text, 10) == [text]
    assert split_passages(text, 9)[-1].endswith("w9")
    assert split_passages("  ", 4) == ["."]


def test_scores_equal_those_of_sentence_transformers():
    theirs = pytest.importorskip("sentence_transformers.util").maxsim
    queries = encode(texts(12, seed=7), word_encoder(), batch_size=4, world=World())
    documents = encode(texts(80, seed=8, longest=30), word_encoder(), batch_size=8, world=World())

    def rows(encoded):
        return [encoded.span(at, at + 1).x_TD for at in range(len(encoded))]

    torch.testing.assert_close(maxsim(queries, documents), theirs(rows(queries), rows(documents)), atol=1e-5, rtol=0)


def _rank_main(rank: int, port: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    world = World(rank, 2, rank, 2)
    calls: list[int] = []

    def counting(items):
        calls.append(len(items))
        return word_encoder()(items)

    for name, items in (("many", texts(45, seed=9, longest=40)), ("one", ["a b c"])):
        matrices = write_token_matrices(
            Path(folder) / name, items, counting, source="", batch_size=4, world=world, passage_words=9
        )
        queries = encode(texts(5, seed=10), word_encoder(), batch_size=4, world=world)
        for mode in ("dense", "late_interaction"):
            hits = search_matrices(queries, matrices, mode, top_k=7, world=world)
            torch.save((calls, hits.positions_QK, hits.scores_QK), f"{folder}/{name}.{mode}.{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.distributed
def test_two_processes_find_what_one_finds_and_make_as_many_passes(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(_rank_main, args=(port, str(tmp_path)), nprocs=2)
    queries = encode(texts(5, seed=10), word_encoder(), batch_size=4, world=World())
    for name, items in (("many", texts(45, seed=9, longest=40)), ("one", ["a b c"])):
        alone = write(tmp_path / f"alone-{name}", items, passage_words=9)
        assert TokenMatrices(tmp_path / name).passages == alone.passages
        for mode in ("dense", "late_interaction"):
            expected = search_matrices(queries, alone, mode, top_k=7)
            found = [torch.load(tmp_path / f"{name}.{mode}.{rank}.pt", weights_only=False) for rank in range(2)]
            assert found[0][0] == found[1][0]
            for _, positions_QK, scores_QK in found:
                np.testing.assert_array_equal(positions_QK, expected.positions_QK)
                np.testing.assert_array_equal(scores_QK, expected.scores_QK)
