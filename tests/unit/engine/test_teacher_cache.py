import json

import numpy as np
import pytest
import torch

from optical_scale.batch import TokenBatch
from optical_scale.engine.teacher_cache import CachedTeacher, CacheWriter, finish_cache, stored_and_read
from optical_scale.errors import EngineError

FINGERPRINT = {"weights": "a", "tokenizer": "b"}
WIDTH = 6


def states(ids, layer=0):
    """Vectors that tell their text and layer: different for every id and place."""
    places_D = torch.arange(1.0, WIDTH + 1) + 0.1 * layer
    return torch.sin(torch.outer(torch.tensor(ids, dtype=torch.float32) + 1, places_D))


def write(folder, precision, parts, layers=()):
    for rank, texts in enumerate(parts):
        writer = CacheWriter(folder, rank, precision)
        for ids in texts:
            if not writer.knows(np.array(ids, np.int32)):
                writer.add(np.array(ids, np.int32), torch.stack([states(ids, n) for n in (0, *layers)]))
        writer.close()
    finish_cache(folder, FINGERPRINT, precision, WIDTH, {}, layers)
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


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_reads_the_inner_layers_that_are_asked_for(tmp_path, precision):
    write(tmp_path, precision, [[[1, 2, 3]], [[4, 5]]], layers=(1, 4))
    cached = CachedTeacher(tmp_path, FINGERPRINT, torch.device("cpu"), layers=[4])
    found = cached.encode(batch([4, 5], [1, 2, 3]))
    assert (cached.layers, list(found.layers)) == ((4,), [4])
    for row, ids in enumerate(([4, 5], [1, 2, 3])):
        for x_BTD, layer in ((found.x_BTD, 0), (found.layers[4], 4)):
            expected = stored_and_read(states(ids, layer), precision)
            torch.testing.assert_close(x_BTD[row, : len(ids)], expected, rtol=0, atol=0)
    missing = (
        r"inner layers \[1, 4\], and the objective compares layer 2; .* teacher.cache.layers='\[1, 4\]', which other"
    )
    with pytest.raises(EngineError, match=missing):
        CachedTeacher(tmp_path, FINGERPRINT, torch.device("cpu"), layers=[1, 2])
    write(tmp_path, precision, [[[1, 2, 3]]])
    with pytest.raises(EngineError, match="holds the output only, and the objective compares layer 3"):
        CachedTeacher(tmp_path, FINGERPRINT, torch.device("cpu"), layers=[3])


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_caches_from_before_inner_layers_are_read(tmp_path, precision):
    write(tmp_path, precision, [[[1, 2]]])
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    del manifest["layers"]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"format": 1}))
    found = CachedTeacher(tmp_path, FINGERPRINT, torch.device("cpu")).encode(batch([1, 2]))
    torch.testing.assert_close(found.x_BTD[0], stored_and_read(states([1, 2]), precision), rtol=0, atol=0)
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"format": 3}))
    with pytest.raises(EngineError, match="has format 3, expected 2"):
        CachedTeacher(tmp_path, FINGERPRINT, torch.device("cpu"))


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
