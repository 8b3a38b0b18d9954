import json

import pytest

from optical_scale.cli.main import USER_ERROR, main
from optical_scale.shards.reader import ShardFolder
from tests.unit.shards.foreign import sample, write_img2dataset, write_tar
from tests.unit.stream.support import loader, strand


def test_index_then_verify_then_inspect(tmp_path, capsys):
    folder = write_img2dataset(tmp_path / "LAION 2B")
    assert main(["index", str(folder), "--language", "pt-BR"]) == 0
    assert main(["verify", str(folder)]) == 0
    assert "6 samples in 2 shards are sound (pt-BR 6)" in capsys.readouterr().out
    assert main(["inspect", str(folder), "--format", "json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["corpora"] == ["laion_2b"]
    assert report["accounts"][0]["dropped"] == {"failed_to_download": 2}
    assert report["images"]["captions"] == {"pt-BR": 1.0}


def test_a_training_stream_reads_the_folder_in_worker_processes(tmp_path):
    lines = [(f"{i}.json", json.dumps({"en": f"dog {i}", "sw": f"mbwa {i}"})) for i in range(40)]
    folder = write_tar(tmp_path / "f" / "a.tar", lines).parent
    words = ["--source", "json.en", "--target", "json.sw", "--language", "sw", "--name", "web"]
    assert main(["index", str(folder), *words]) == 0
    view = ShardFolder(folder).select("sw")
    stream = loader(workers=1, strands=[strand([view], pairs_per_step=8)])
    keys = {key for step in range(5) for batch in stream.take(step) for key in batch.keys}
    stream.close()
    assert keys == {f"a-{i}" for i in range(40)}


def test_mistakes_are_one_message(tmp_path, capsys):
    folder = write_tar(tmp_path / "f" / "a.tar", sample("a")).parent
    assert main(["index", str(folder), "--language", "EN"]) == USER_ERROR
    assert "write `en`" in capsys.readouterr().err
    assert main(["index", str(folder), "--language", "en", "--source", "json.a"]) == USER_ERROR
    assert "both of --source and --target" in capsys.readouterr().err
    assert main(["index", str(folder)]) == 2
    assert "--language --language-at is required" in capsys.readouterr().err
    assert main(["index", str(tmp_path), "--language", "en"]) == USER_ERROR
    assert "no *.tar in it" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--faults", "drop"], ["--caption", "json.caption"]])
def test_options_reach_the_layout(tmp_path, words):
    folder = write_tar(tmp_path / "f" / "a.tar", [*sample("a", caption="x"), ("b.txt", "no image")]).parent
    status = main(["index", str(folder), "--language", "en", *words])
    assert status == (0 if words[0] == "--faults" else USER_ERROR)
