import json

import pytest

from optical_scale.cli.main import USER_ERROR, main
from tests.unit.inspection.folders import pairs, write


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "shards", pairs(12))


def test_the_suffix_of_the_output_decides_unless_told_otherwise(folder, tmp_path, capsys):
    assert main(["inspect", str(folder)]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"{folder}: 12 pairs in 2 shards")
    assert main(["inspect", str(folder), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 12
    for name in ("page.html", "report.json", "report.txt", "as.json"):
        words = ["--format", "text"] if name == "as.json" else []
        assert main(["inspect", str(folder), "--output", str(tmp_path / name), *words]) == 0
    assert capsys.readouterr().out == ""
    assert (tmp_path / "page.html").read_text("utf-8").startswith("<!doctype html>")
    assert json.loads((tmp_path / "report.json").read_text("utf-8"))["schema_version"] == 1
    assert (tmp_path / "report.txt").read_text("utf-8") == text == (tmp_path / "as.json").read_text("utf-8")


def test_mistakes_are_one_message(folder, tmp_path, capsys):
    assert main(["inspect", str(tmp_path)]) == USER_ERROR
    assert "no manifest.json" in capsys.readouterr().err
    assert main(["inspect", str(folder), "--tokenizer", str(tmp_path / "none.json")]) == USER_ERROR
    assert "none.json is no tokenizer" in capsys.readouterr().err
    assert main(["inspect", str(folder), "--limit", "0"]) == USER_ERROR
