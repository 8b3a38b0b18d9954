import pytest

from optical_scale.cli.main import main
from tests.unit.export.checkpoints import checkpoints


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return checkpoints(tmp_path_factory.getbasetemp() / "trained")["stage0"]


def test_export_verb(run, tmp_path, capsys):
    output = tmp_path / "student"
    assert main(["export", str(run), "--output", str(output), "--license", "mit", "max_shard_bytes=9000"]) == 0
    said = capsys.readouterr()
    assert "difference to the trained embeddings 0 " in said.out
    assert "difference" not in said.err
    assert "license: mit" in (output / "README.md").read_text()
    assert len(list(output.glob("model-*.safetensors"))) > 1


def test_mistakes(run, tmp_path, capsys):
    assert main(["export", str(tmp_path), "--output", str(tmp_path / "out")]) == 2
    assert main(["export", str(run), "--output", str(tmp_path / "out"), "dtyp=float16"]) == 2
    messages = capsys.readouterr().err
    assert "holds no checkpoint of this project" in messages
    assert "did you mean 'dtype'?" in messages
    assert list(tmp_path.iterdir()) == []
