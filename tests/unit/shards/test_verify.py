import json
from dataclasses import replace

import pytest

from optical_scale.runtime.files import sha256
from optical_scale.shards.index import index_path
from optical_scale.shards.manifest import read_manifest, write_manifest
from optical_scale.shards.verify import verify
from optical_scale.shards.writer import write_shards
from tests.unit.shards.support import images, pairs


@pytest.fixture
def folder(tmp_path):
    write_shards([*pairs(5, "tl"), *pairs(4, "sw")], tmp_path / "out", 3)
    return tmp_path / "out"


def accept(folder):
    """Make the manifest agree with the tars, as somebody would who edits shards and fixes the hashes."""
    manifest = read_manifest(folder)
    shards = [
        replace(shard, bytes=(folder / shard.name).stat().st_size, sha256=sha256(folder / shard.name))
        for shard in manifest.shards
    ]
    write_manifest(folder, replace(manifest, shards=tuple(shards)))


def test_fresh_shards_are_sound(folder, tmp_path):
    write_shards(images(5), tmp_path / "images", 2)
    assert verify(folder) == []
    assert verify(tmp_path / "images") == []


def test_a_copy_is_as_good(folder):
    assert verify(folder.rename(folder.with_name("a copy, with {braces} and: colon"))) == []


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda path: path.unlink(), "missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "bytes, the manifest says"),
        (lambda path: path.write_bytes(path.read_bytes().replace(b"sentensi 1", b"sentensi 7")), "SHA-256"),
        (lambda path: index_path(path).unlink(), "not the index"),
        (lambda path: index_path(path).write_bytes(bytes(64)), "not the index"),
    ],
)
def test_each_harm_is_one_problem_that_names_the_file(folder, harm, message):
    harm(folder / "bitext-tl-000000.tar")
    [problem] = verify(folder)
    assert "bitext-tl-000000.tar" in problem
    assert message in problem


def test_all_problems_are_listed(folder):
    (folder / "bitext-sw-000000.tar").unlink()
    (folder / "bitext-tl-000001.tar").write_bytes(b"")
    (folder / "stray.tar").touch()
    assert len(verify(folder)) == 3


def test_no_manifest(tmp_path):
    [problem] = verify(tmp_path)
    assert "no manifest.json" in problem


def test_repeated_key_and_foreign_language(folder):
    """What hashes cannot show: shards that are intact but wrong."""
    for name in ("bitext-tl-000001.tar", "bitext-tl-000001.tar.index"):
        (folder / name).write_bytes((folder / name.replace("tl", "sw").replace("1.tar", "0.tar")).read_bytes())
    manifest = read_manifest(folder)
    shards = [replace(s, samples=3) if s.name == "bitext-tl-000001.tar" else s for s in manifest.shards]
    write_manifest(folder, replace(manifest, shards=tuple(shards), counts={"sw": 4, "tl": 6}))
    accept(folder)
    problems = "\n".join(verify(folder))
    assert "key news-sw-00000000 occurs twice in the folder" in problems
    assert "news-sw-00000000 is in `sw`, the shard in `tl`" in problems


def test_wrong_caption_counts(tmp_path):
    write_shards(images(2), tmp_path / "out")
    manifest = read_manifest(tmp_path / "out")
    write_manifest(tmp_path / "out", replace(manifest, counts={"de": 2, "en": 3}))
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["counts"]["en"] == 3
    [problem] = verify(tmp_path / "out")
    assert "2 texts in `en`, the manifest says 3" in problem
