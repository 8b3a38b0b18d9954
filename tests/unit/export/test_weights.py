import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from optical_scale.engine.archive import Archive
from optical_scale.engine.consolidate import StoredTensor, _Run
from optical_scale.errors import ExportError
from optical_scale.export import weights
from optical_scale.export.weights import Weight, plan_files, write_files


def stored(tmp_path, name, tensor):
    torch.save(tensor, tmp_path / f"{name}.pt")
    archive = Archive(tmp_path / f"{name}.pt")
    dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
    return StoredTensor((name,), tuple(tensor.shape), dtype, (_Run(archive, archive.content, 0, tensor.numel()),))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_files_hold_what_was_stored(tmp_path, dtype, monkeypatch):
    monkeypatch.setattr("optical_scale.engine.consolidate.PIECE", 5)
    tensors = {
        "a": torch.randn(7, 3),
        "counts": torch.arange(4),
        "b": torch.randn(11),
        "flag": torch.tensor([True, False]),
        "scalar": torch.tensor(2.5),
    }
    listed = [Weight(name, stored(tmp_path, name, tensor), dtype) for name, tensor in tensors.items()]
    (tmp_path / "out").mkdir()
    write_files(tmp_path / "out", plan_files(listed, 1000))
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor.to(dtype) if tensor.is_floating_point() else tensor)
    with safe_open(tmp_path / "out" / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}


@pytest.mark.parametrize("piece", [1, 4, 7, 100])
def test_rows_are_chosen_across_pieces(tmp_path, piece, monkeypatch):
    monkeypatch.setattr("optical_scale.engine.consolidate.PIECE", piece)
    table = torch.randn(9, 4)
    rows_R = torch.tensor([0, 1, 1, 0, 0, 1, 0, 0, 1]).bool()
    weight = Weight("t", stored(tmp_path, "t", table), torch.float32, rows_R)
    assert weight.shape == (4, 4)
    assert torch.equal(torch.cat([*weight.pieces()]).view(4, 4), table[rows_R])


def test_files_are_filled_in_order(tmp_path):
    listed = [Weight(str(i), stored(tmp_path, str(i), torch.zeros(10)), torch.float32) for i in range(5)]
    assert [len(file) for file in plan_files(listed, 80).values()] == [2, 2, 1]
    assert [len(file) for file in plan_files(listed, 1).values()] == [1] * 5
    assert list(plan_files(listed, 10**6)) == ["model.safetensors"]
    assert next(iter(plan_files(listed, 100))) == "model-00001-of-00003.safetensors"


@pytest.mark.parametrize(
    ("value", "cause"), [(torch.nan, "in the checkpoint"), (torch.inf, "in the"), (1e6, "in torch.float16")]
)
def test_values_that_are_not_finite(tmp_path, value, cause):
    tensor = torch.zeros(6)
    tensor[4] = value
    weight = Weight("t", stored(tmp_path, "t", tensor), torch.float16)
    with pytest.raises(ExportError, match=f"tensor t is not finite {cause}"):
        list(weight.pieces())


def test_types_that_files_cannot_hold(tmp_path):
    weight = Weight("c", stored(tmp_path, "c", torch.zeros(2, dtype=torch.float64)), torch.float64)
    with pytest.raises(ExportError, match=r"tensor c is of torch.float64"):
        weights.write_file(tmp_path / "x.safetensors", [weight])
    assert not (tmp_path / "x.safetensors").exists()
