"""Corpora behind URLs: what is named arrives, once, whole."""

import fsspec
import pytest
from PIL import Image

from optical_scale.config.convert import ConvertConfig
from optical_scale.errors import CorpusError
from optical_scale.recipes.convert import convert


@pytest.fixture
def bucket(tmp_path):
    folder = tmp_path / "bucket"
    (folder / "dev").mkdir(parents=True)
    (folder / "dev" / "eng.txt").write_text("one\ntwo\n")
    (folder / "dev" / "swh.txt").write_text("moja\nmbili\n")
    (folder / "dev" / "tgl.txt").write_text("isa\ndalawa\n")
    (folder / "test.en").write_text("two\n")
    (folder / "unrelated.bin").write_bytes(b"x" * 1000)
    return folder


def settings(tmp_path, **changes):
    corpus = {"format": "parallel", "name": "p", "source": "dev/eng.txt", "target": "dev/{code}.txt"}
    corpus |= {"languages": ["sw", "tl"], "codes": {"sw": "swh", "tl": "tgl"}}
    values = {"output": tmp_path / "out", "folder": tmp_path / "cache", "remote": f"file://{tmp_path}/bucket"}
    return ConvertConfig.model_validate(values | {"corpora": [corpus], "filters": {"held_out": ["test.en"]}} | changes)


def test_what_is_named_is_fetched_and_nothing_else(bucket, tmp_path):
    assert convert(settings(tmp_path)).counts == {"sw": 1, "tl": 1}
    found = sorted(path.relative_to(tmp_path / "cache") for path in (tmp_path / "cache").rglob("*") if path.is_file())
    assert [str(path) for path in found] == ["dev/eng.txt", "dev/swh.txt", "dev/tgl.txt", "test.en"]


def test_what_is_there_is_not_fetched_again(bucket, tmp_path):
    (tmp_path / "cache" / "dev").mkdir(parents=True)
    (tmp_path / "cache" / "dev" / "swh.txt").write_text("kwanza\npili\n")
    (bucket / "dev" / "swh.txt").unlink()
    assert convert(settings(tmp_path)).samples == 2


def test_folders_of_images_come_whole(tmp_path):
    (tmp_path / "bucket" / "images").mkdir(parents=True)
    for number in range(3):
        Image.new("RGB", (8, 8)).save(tmp_path / "bucket" / "images" / f"{number}.jpg")
    (tmp_path / "bucket" / "list.txt").write_text("0.jpg\n2.jpg\n")
    (tmp_path / "bucket" / "en.txt").write_text("a\nb\n")
    corpus = {"format": "caption_lines", "name": "c", "image_list": "list.txt", "images": "images"}
    changes = {"corpora": [corpus | {"captions": {"en": "en.txt"}}], "filters": {}}
    assert convert(settings(tmp_path, **changes)).samples == 2


def test_a_file_that_is_nowhere_is_the_reader_s_to_name(bucket, tmp_path):
    (bucket / "dev" / "tgl.txt").unlink()
    with pytest.raises(CorpusError, match=r"dev/tgl\.txt: cannot be read"):
        convert(settings(tmp_path))


def test_unknown_file_systems_are_named(tmp_path):
    with pytest.raises(CorpusError, match="remote: nowhere://x: no file system for this URL"):
        convert(settings(tmp_path, remote="nowhere://x"))


def test_cut_files_never_appear(bucket, tmp_path, monkeypatch):
    local = type(fsspec.filesystem("file"))
    original = local.get_file

    def cut(self, source, target, **options):
        original(self, source, target, **options)
        if source.endswith("swh.txt"):
            open(target, "w").close()

    monkeypatch.setattr(local, "get_file", cut)
    monkeypatch.setattr("optical_scale.runtime.attempts.time.sleep", lambda seconds: None)
    with pytest.raises(CorpusError, match=r"swh\.txt: 0 bytes arrived, expected 11"):
        convert(settings(tmp_path))
    assert not (tmp_path / "cache" / "dev" / "swh.txt").exists()
    assert not (tmp_path / "out").exists()
