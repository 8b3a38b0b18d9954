import pickle
import zipfile

import pytest
import torch

from optical_scale.engine.archive import Archive, Foreign
from optical_scale.errors import CheckpointError


class Stranger:
    """A class that the reader does not know; unpickling it the ordinary way would leave a trace."""

    ran = False

    def __setstate__(self, state):
        Stranger.ran = True


@pytest.fixture
def saved(tmp_path):
    storage = torch.arange(100, dtype=torch.float32)
    content = {
        "view": storage[10:40],
        "half": torch.arange(7).to(torch.bfloat16),
        "parameter": torch.nn.Parameter(torch.ones(2, 3)),
        "empty": torch.empty(0),
        "stranger": Stranger(),
        "numbers": [1, 2.5, "three"],
    }
    content["stranger"].value = 1
    torch.save(content, tmp_path / "saved.pt")
    return tmp_path / "saved.pt"


def test_ranges_of_views_come_back(saved):
    archive = Archive(saved)
    content = archive.content
    assert archive.read(content["view"], 5, 12).tolist() == [float(i) for i in range(15, 22)]
    assert archive.read(content["view"], 0, 3).tolist() == [10.0, 11.0, 12.0]
    assert torch.equal(archive.read(content["half"], 0, 7), torch.arange(7).to(torch.bfloat16))
    assert archive.read(content["parameter"], 2, 6).tolist() == [1.0] * 4
    assert archive.read(content["empty"], 0, 0).numel() == 0
    archive.finish()


def test_classes_are_not_rebuilt_and_their_code_does_not_run(saved):
    content = Archive(saved).content
    assert isinstance(content["stranger"], Foreign)
    assert content["stranger"].args == ({"value": 1},)
    assert not Stranger.ran
    assert content["numbers"] == [1, 2.5, "three"]


@pytest.mark.parametrize("read", [(0, 5), (20, 30)])
def test_changed_data_is_found_wherever_it_is_read(saved, read):
    with zipfile.ZipFile(saved) as file:
        item = next(item for item in file.infolist() if item.file_size == 400)
    data = bytearray(saved.read_bytes())
    position = data.index(torch.arange(100, dtype=torch.float32).numpy().tobytes(), item.header_offset)
    data[position + 4 * 50] ^= 1
    saved.write_bytes(data)
    archive = Archive(saved)
    archive.read(archive.content["view"], *read)
    with pytest.raises(CheckpointError, match="is damaged: the checksum"):
        archive.finish()


def test_data_that_nobody_asked_for_is_not_read(saved):
    archive = Archive(saved)
    archive.finish()
    with pytest.raises(ValueError, match="closed"):
        archive.read(archive.content["view"], 0, 1)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", pickle.dumps({"a": 1})])
def test_other_files(tmp_path, content):
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x\.pt cannot be read"):
        Archive(tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"y\.pt cannot be read"):
        Archive(tmp_path / "y.pt")


def test_tensors_with_gaps_are_refused(tmp_path):
    torch.save(torch.ones(3, 4).T, tmp_path / "t.pt")
    archive = Archive(tmp_path / "t.pt")
    with pytest.raises(CheckpointError, match="gaps between its rows"):
        archive.read(archive.content, 0, 12)
