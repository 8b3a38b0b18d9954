from types import SimpleNamespace

import pytest
import torch

from optical_scale.engine.offloaded import INDEX, offloaded_vectors, write_index
from optical_scale.errors import CheckpointError


@pytest.fixture
def folder(tmp_path):
    """Three vectors of one rank as DeepSpeed leaves them: the middle one in memory, files padded to whole blocks."""
    vectors = [
        SimpleNamespace(ds_id=name, numel=lambda size=size: size) for name, size in (("1_2", 0), ("3_3", 4), ("0_0", 0))
    ]
    write_index(
        tmp_path, SimpleNamespace(fp32_partitioned_groups_flat=vectors, fp16_partitioned_groups_flat_numel=[5, 4, 2])
    )
    rank = tmp_path / "offloaded_tensors" / "rank00"
    rank.mkdir(parents=True)
    for name, values in (("1_2", [1.0, 2.0, 3.0, 4.0, 5.0]), ("0_0", [6.0, 7.0])):
        torch.tensor([*values, *[0.0] * 123]).numpy().tofile(rank / f"{name}.tensor.swp")
    return tmp_path


def test_vectors_in_files_are_read_by_ranges_in_the_optimizers_order(folder):
    first, second, third = offloaded_vectors(folder, 0, 3)
    assert second is None
    assert first.read(first.shape, 1, 4).tolist() == [2.0, 3.0, 4.0]
    assert third.read(third.shape, 0, 2).tolist() == [6.0, 7.0]


def test_a_short_file_and_a_lost_index_are_named(folder):
    path = folder / "offloaded_tensors" / "rank00" / "0_0.tensor.swp"
    path.write_bytes(path.read_bytes()[:4])
    with pytest.raises(CheckpointError, match=r"0_0\.tensor\.swp has 4 bytes; expected at least 8"):
        offloaded_vectors(folder, 0, 3)
    (folder / INDEX).unlink()
    with pytest.raises(CheckpointError, match=r"offloaded_tensors/ and no offloaded\.json"):
        offloaded_vectors(folder, 0, 3)


def test_without_offload_there_are_none(tmp_path):
    assert offloaded_vectors(tmp_path, 0, 2) == [None, None]
