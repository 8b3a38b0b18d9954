"""Folders behind URLs: whole or not at all, never over others."""

import os
from collections import Counter

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from optical_scale.cli.main import main
from optical_scale.errors import ShardError
from optical_scale.shards.manifest import FILE_NAME
from optical_scale.shards.reader import ShardFolder
from optical_scale.shards.remote import RemoteShards
from optical_scale.shards.upload import upload
from optical_scale.shards.writer import write_shards
from tests.unit.shards.support import pairs


class Bucket(LocalFileSystem):
    """A file system that fails, or loses the end of a file, as told, and remembers the order of what was written."""

    protocol = "bucket"
    failures: Counter = Counter()
    cuts: Counter = Counter()
    written: list = []

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).removeprefix("bucket://"))

    def put_file(self, path1, path2, **settings):
        name = os.path.basename(path2)
        if self.failures[name] > 0:
            self.failures[name] -= 1
            raise ConnectionResetError("connection reset by peer")
        super().put_file(path1, path2, **settings)
        self.written.append(name)
        if self.cuts[name] > 0:
            self.cuts[name] -= 1
            os.truncate(path2, 10)


fsspec.register_implementation("bucket", Bucket)


@pytest.fixture(autouse=True)
def calm():
    Bucket.failures.clear()
    Bucket.cuts.clear()
    Bucket.written.clear()


@pytest.fixture
def folder(tmp_path):
    write_shards(pairs(30), tmp_path / "local", 12)
    return tmp_path / "local"


def run(folder, tmp_path, **options):
    return upload(folder, f"bucket://{tmp_path / 'remote'}", attempts=3, first_wait=0.001, **options)


def test_what_arrives_is_the_folder_and_readable_there(folder, tmp_path):
    assert run(folder, tmp_path)
    assert {p.name: p.read_bytes() for p in (tmp_path / "remote").iterdir()} == {
        p.name: p.read_bytes() for p in folder.iterdir()
    }
    remote = RemoteShards(f"bucket://{tmp_path / 'remote'}", tmp_path / "cache", most_bytes=10**9)
    assert list(ShardFolder.fetched(remote).select("sw")) == pairs(30)
    assert Bucket.written[-1] == FILE_NAME
    assert not run(folder, tmp_path), "the same folder again is no work"


def test_failures_and_cut_files_are_tried_again(folder, tmp_path):
    Bucket.failures["bitext-sw-000001.tar"] = 2
    Bucket.cuts["bitext-sw-000000.tar"] = 1
    assert run(folder, tmp_path)
    assert ShardFolder(tmp_path / "remote").read("sw", 3) == pairs(30)[3]


def test_without_all_files_there_is_no_manifest(folder, tmp_path):
    Bucket.failures["bitext-sw-000002.tar"] = 99
    with pytest.raises(ShardError, match=r"bitext-sw-000002.tar: cannot be written in 3 attempts .*connection reset"):
        run(folder, tmp_path)
    assert not (tmp_path / "remote" / FILE_NAME).exists()
    Bucket.failures.clear()
    assert run(folder, tmp_path)


def test_other_shards_are_never_replaced(folder, tmp_path):
    write_shards(pairs(5), tmp_path / "remote")
    before = {path.name: path.read_bytes() for path in (tmp_path / "remote").iterdir()}
    with pytest.raises(ShardError, match="other shards are there already"):
        run(folder, tmp_path)
    assert {path.name: path.read_bytes() for path in (tmp_path / "remote").iterdir()} == before


def test_a_damaged_folder_stays_at_home(folder, tmp_path):
    (folder / "bitext-sw-000000.tar").write_bytes(b"")
    with pytest.raises(ShardError, match="so nothing was copied"):
        run(folder, tmp_path)
    assert not (tmp_path / "remote").exists()


def test_the_verb(folder, tmp_path, capsys):
    assert main(["upload", str(folder), f"file://{tmp_path / 'remote'}"]) == 0
    assert capsys.readouterr().out.endswith("remote: copied\n")
    assert main(["upload", str(folder), "nowhere://bucket/x"]) == 2
    assert "no file system for this URL" in capsys.readouterr().err
