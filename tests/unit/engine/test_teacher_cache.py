import json

import numpy as np
import pytest
import torch

from optical_scale.batch import TokenBatch
from optical_scale.engine.teacher_cache import CachedTeacher, CacheWriter, finish_cache, stored_and_read
from optical_scale.errors import EngineError

FINGERPRINT = {"weights": "a", "tokenizer": "b"}
WIDTH = 6


def states(ids):
    """Vectors that tell their text: different for every id and place."""
    return torch.sin(torch.outer(torch.tensor(ids, dtype=torch.float32) + 1, torch.arange(1.0, WIDTH + 1)))


def write(folder, precision, parts):
    for rank, texts in enumerate(parts):
        writer = CacheWriter(folder, rank, precision)
        for ids in texts:
            if not writer.knows(np.array(ids, np.int32)):
                writer.add(np.array(ids, np.int32), states(ids))
        writer.close()
    finish_cache(folder, FINGERPRINT, precision, WIDTH, {})
    return folder


def batch(*texts):
    longest = max(map(len, texts))
    ids_BT = torch.tensor([[*ids, *[0] * (longest - len(ids))] for ids in texts])
    attention_BT = torch.tensor([[i < len(ids) for i in range(longest)] for ids in texts])
    return TokenBatch(ids_BT, attention_BT, attention_BT)


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 0.0), ("bfloat16", 4e-3), ("int8", 5e-3)])
def test_reads_what_several_ranks_wrote(tmp_path, precision, tolerance):
    cached = CachedTeacher(
        write(tmp_path, precision, [[[1, 2, 3], [4, 5]], [[4, 5], [9]]]), FINGERPRINT, torch.device("cpu")
    )
    x_BTD = cached.encode(batch([4, 5], [9], [1, 2, 3])).x_BTD
    for row, ids in enumerate(([4, 5], [9], [1, 2, 3])):
        assert (x_BTD[row, : len(ids)] - states(ids)).abs().max() <= tolerance
        torch.testing.assert_close(x_BTD[row, : len(ids)], stored_and_read(states(ids), precision), rtol=0, atol=0)
        assert (x_BTD[row, len(ids) :] == 0).all()


def test_a_text_is_stored_once_per_rank_and_counted_once(tmp_path):
    write(tmp_path, "bfloat16", [[[1, 2], [1, 2], [7]], [[1, 2]]])
    assert json.loads((tmp_path / "manifest.json").read_text())["texts"] == 2
    assert (tmp_path / "states-00000.bin").stat().st_size == 3 * WIDTH * 2


def test_unknown_text_other_teacher_and_unfinished_cache_are_refused(tmp_path):
    cached = CachedTeacher(write(tmp_path, "float32", [[[1, 2]]]), FINGERPRINT, torch.device("cpu"))
    with pytest.raises(EngineError, match="no states for a text of 2 tokens"):
        cached.encode(batch([2, 1]))
    with pytest.raises(EngineError, match=r"weights \(cache a, run z\)"):
        CachedTeacher(tmp_path, {**FINGERPRINT, "weights": "z"}, torch.device("cpu"))
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(EngineError, match="no finished cache"):
        CachedTeacher(tmp_path, FINGERPRINT, torch.device("cpu"))


def test_vectors_of_zeros_survive_int8():
    assert (stored_and_read(torch.zeros(2, WIDTH), "int8") == 0).all()
