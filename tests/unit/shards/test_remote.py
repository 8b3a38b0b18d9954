import os
import pickle
from collections import Counter

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from optical_scale.errors import ShardError
from optical_scale.shards.reader import ShardFolder
from optical_scale.shards.remote import RemoteShards
from optical_scale.shards.writer import write_shards
from tests.unit.shards.support import pairs


class Flaky(LocalFileSystem):
    """A file system that fails the first reads of a file as told, and counts them all."""

    protocol = "flaky"
    failures: Counter = Counter()
    reads: Counter = Counter()

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).removeprefix("flaky://"))

    def get_file(self, path1, path2, **settings):
        name = os.path.basename(path1)
        self.reads[name] += 1
        if self.failures[name] > 0:
            self.failures[name] -= 1
            raise ConnectionResetError("connection reset by peer")
        super().get_file(path1, path2, **settings)


fsspec.register_implementation("flaky", Flaky)


@pytest.fixture(autouse=True)
def calm():
    Flaky.failures.clear()
    Flaky.reads.clear()


def remote(tmp_path, most_bytes=10**9, protocol="flaky"):
    url = f"{protocol}://{tmp_path / 'bucket'}"
    return RemoteShards(url, tmp_path / "cache", most_bytes=most_bytes, attempts=3, first_wait=0.001)


@pytest.fixture
def bucket(tmp_path):
    write_shards(pairs(30), tmp_path / "bucket", 6)
    return tmp_path / "bucket"


@pytest.mark.parametrize("protocol", ["file", "flaky"])
def test_remote_samples_are_the_local_ones(bucket, tmp_path, protocol):
    folder = ShardFolder.fetched(remote(tmp_path, protocol=protocol))
    assert list(folder.select("sw")) == pairs(30)
    assert folder.select("sw").name == ShardFolder(bucket).select("sw").name
    copy = pickle.loads(pickle.dumps(folder.select("sw")))
    assert copy[29] == pairs(30)[29]


def test_only_what_is_read_is_fetched_and_only_once(bucket, tmp_path):
    for _ in range(2):
        folder = ShardFolder.fetched(remote(tmp_path))
        assert [folder.read("sw", index) for index in (0, 5, 7)] == [pairs(30)[index] for index in (0, 5, 7)]
    assert Flaky.reads == {
        "manifest.json": 2,
        **{f"bitext-sw-00000{n}.tar{end}": 1 for n in (0, 1) for end in ("", ".index")},
    }


def test_failing_reads_are_tried_again(bucket, tmp_path, caplog):
    Flaky.failures.update({"manifest.json": 2, "bitext-sw-000000.tar": 2})
    assert ShardFolder.fetched(remote(tmp_path)).read("sw", 0) == pairs(1)[0]
    assert "attempt 2 failed (connection reset by peer)" in caplog.text


def test_after_the_last_attempt_the_shard_is_unreadable_and_not_asked_again_at_once(bucket, tmp_path):
    folder = ShardFolder.fetched(remote(tmp_path))
    Flaky.failures["bitext-sw-000000.tar"] = 99
    for _ in range(2):
        with pytest.raises(ShardError, match="cannot be read in 3 attempts: connection reset") as caught:
            folder.read("sw", 0)
    assert caught.value.reason == "unreadable shard"
    assert Flaky.reads["bitext-sw-000000.tar"] == 3
    assert folder.read("sw", 6) == pairs(30)[6]


def test_what_is_not_there_is_not_tried_again(bucket, tmp_path):
    folder = ShardFolder.fetched(remote(tmp_path))
    (bucket / "bitext-sw-000001.tar").unlink()
    with pytest.raises(ShardError, match=r"bitext-sw-000001\.tar does not exist") as caught:
        folder.read("sw", 6)
    assert caught.value.reason == "missing shard"
    assert Flaky.reads["bitext-sw-000001.tar"] == 1
    with pytest.raises(ShardError, match=r"manifest\.json does not exist"):
        ShardFolder.fetched(remote(tmp_path / "elsewhere"))


def test_damage_on_the_way_is_found_before_the_file_appears(bucket, tmp_path):
    folder = ShardFolder.fetched(remote(tmp_path))
    path = bucket / "bitext-sw-000000.tar"
    data = bytearray(path.read_bytes())
    data[700] ^= 1
    path.write_bytes(data)
    with pytest.raises(ShardError, match="SHA-256 is"):
        folder.read("sw", 0)
    assert not list((tmp_path / "cache").rglob("*.tar"))
    path.write_bytes(data[:2000])
    with pytest.raises(ShardError, match="2,000 bytes, expected") as caught:
        ShardFolder.fetched(remote(tmp_path)).read("sw", 0)
    assert caught.value.reason == "truncated shard"


def test_the_cache_stays_within_its_bound_and_reading_goes_on(bucket, tmp_path):
    size = (bucket / "bitext-sw-000000.tar").stat().st_size
    for most, kept in ((2 * size, 2), (1, 1)):
        folder = ShardFolder.fetched(remote(tmp_path, most_bytes=most))
        assert list(folder.select("sw")) == pairs(30)
        folder.close()
        assert list(folder.select("sw")) == pairs(30)
        assert len(list((tmp_path / "cache").rglob("*.tar"))) == kept


def test_a_changed_manifest_empties_the_cache(bucket, tmp_path):
    list(ShardFolder.fetched(remote(tmp_path)).select("sw"))
    for path in bucket.iterdir():
        path.unlink()
    write_shards(pairs(30)[::-1], bucket, 6)
    assert list(ShardFolder.fetched(remote(tmp_path)).select("sw")) == pairs(30)[::-1]


def test_an_unknown_protocol_is_named(tmp_path):
    with pytest.raises(ShardError, match="no file system for this URL"):
        ShardFolder.fetched(RemoteShards("carrier-pigeon://x", tmp_path, most_bytes=1, attempts=1))
