import json
from dataclasses import replace

import pytest

from optical_scale.errors import ShardError
from optical_scale.shards.manifest import Dropped, Manifest, ShardEntry, read_manifest, write_manifest

MANIFEST = Manifest(
    kind="bitext",
    corpora=("news",),
    shards=(
        ShardEntry("bitext-sw-000000.tar", "sw", 3, 4096, "ab" * 32),
        ShardEntry("bitext-tl-000000.tar", "tl", 2, 4096, "cd" * 32),
    ),
    counts={"sw": 3, "tl": 2},
    dropped=(Dropped("news", "sw", "blank", 7),),
)


def test_round_trip(tmp_path):
    write_manifest(tmp_path, MANIFEST)
    read = read_manifest(tmp_path)
    assert read == MANIFEST
    assert (read.samples, read.languages, read.fingerprint) == (5, ("sw", "tl"), MANIFEST.fingerprint)


def test_fingerprint_depends_on_contents_only():
    first, second = MANIFEST.shards
    assert replace(MANIFEST, dropped=(), corpora=("x",)).fingerprint == MANIFEST.fingerprint
    others = [
        replace(MANIFEST, format_version=2),
        replace(MANIFEST, shards=(second, first)),
        replace(MANIFEST, shards=(first, replace(second, sha256="ef" * 32))),
        replace(MANIFEST, shards=(first,)),
    ]
    assert len({MANIFEST.fingerprint, *(other.fingerprint for other in others)}) == 5


def test_missing_manifest_says_what_makes_one(tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ShardError, match=r"no manifest\.json.*optical-scale convert"):
            read_manifest(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format_version=2), "format version 2; this program reads version 1"),
        (lambda m: m.pop("counts"), "damaged"),
        (lambda m: m["counts"].update(sw=4), "shards hold"),
        (lambda m: m["counts"].pop("sw"), "damaged"),
        (lambda m: m.update(kind="audio"), "kind is 'audio'"),
        (lambda m: m["shards"][0].update(name="../x.tar"), r"shard '\.\./x\.tar'"),
        (lambda m: m["shards"][0].update(sha256="00" * 32), "fingerprint"),
        (lambda m: m.update(surprise=1), "surprise"),
    ],
)
def test_contradictions(tmp_path, change, message):
    write_manifest(tmp_path, MANIFEST)
    path = tmp_path / "manifest.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    with pytest.raises(ShardError, match=message):
        read_manifest(tmp_path)


@pytest.mark.parametrize(("content", "message"), [("{", "unreadable"), ("[]", "format version None")])
def test_not_a_manifest(tmp_path, content, message):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(ShardError, match=message):
        read_manifest(tmp_path)
