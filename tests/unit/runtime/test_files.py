import os
import stat

import pytest

from optical_scale.runtime.files import folder_appears, sha256, write_atomic, write_json


def test_write_atomic_replaces_whole_files(tmp_path):
    path = tmp_path / "new" / "file.txt"
    write_atomic(path, "first")
    write_atomic(path, "zweite ☃")
    assert path.read_text(encoding="utf-8") == "zweite ☃"
    write_atomic(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert os.listdir(path.parent) == ["file.txt"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file.txt"
    write_atomic(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(path, "\udc00")
    # A folder in the way fails the last move, after the new content was written.
    target = tmp_path / "taken"
    (target / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match="taken"):
        write_atomic(target, "new")
    assert path.read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["file.txt", "taken"]


def test_json_is_readable(tmp_path):
    write_json(tmp_path / "a.json", {"word": "größe"})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "word": "größe"\n}\n'


def test_folder_appears_whole(tmp_path):
    target = tmp_path / "deep" / "target"
    with folder_appears(target) as folder:
        (folder / "a").write_text("x")
        assert not target.exists()
        assert folder.parent == target.parent
    assert (target / "a").read_text() == "x"
    plain = tmp_path / "plain"
    plain.mkdir()
    assert stat.S_IMODE(target.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
    assert os.listdir(target.parent) == ["target"]


def test_a_failed_folder_vanishes(tmp_path):
    def fail():
        with folder_appears(tmp_path / "target") as folder:
            (folder / "a").write_text("x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert os.listdir(tmp_path) == []


def test_an_empty_folder_is_replaced_and_a_full_one_kept(tmp_path):
    (tmp_path / "empty").mkdir()
    with folder_appears(tmp_path / "empty") as folder:
        (folder / "a").write_text("x")
    assert os.listdir(tmp_path / "empty") == ["a"]
    with pytest.raises(FileExistsError, match="already exists"), folder_appears(tmp_path / "empty"):
        pytest.fail("the block must not run")
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError), folder_appears(tmp_path / "file"):
        pytest.fail("the block must not run")
    assert sorted(os.listdir(tmp_path)) == ["empty", "file"]


def test_sha256_of_more_than_one_piece(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "b").write_bytes(bytes(1 << 20) + b"1")
    (tmp_path / "c").write_bytes(bytes(1 << 20) + b"2")
    assert sha256(tmp_path / "b") != sha256(tmp_path / "c")
