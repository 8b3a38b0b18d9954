import hashlib
import itertools
import json
import tarfile

import pytest
import webdataset

from optical_scale.errors import CorpusError, ShardError
from optical_scale.shards.codec import encode
from optical_scale.shards.manifest import Dropped, read_manifest
from optical_scale.shards.samples import Samples
from optical_scale.shards.writer import ShardFiles, write_shards
from tests.unit.shards.support import images, pairs


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def mixed():
    """Two languages, alternating as long as both last."""
    both = itertools.zip_longest(pairs(7, "tl"), pairs(4, "sw"))
    return [record for couple in both for record in couple if record]


def test_shards_hold_one_language_and_a_bounded_number(tmp_path):
    manifest = write_shards(mixed(), tmp_path / "out", samples_per_shard=3)
    assert [(shard.name, shard.language, shard.samples) for shard in manifest.shards] == [
        ("bitext-sw-000000.tar", "sw", 3),
        ("bitext-sw-000001.tar", "sw", 1),
        ("bitext-tl-000000.tar", "tl", 3),
        ("bitext-tl-000001.tar", "tl", 3),
        ("bitext-tl-000002.tar", "tl", 1),
    ]
    assert manifest.counts == {"sw": 4, "tl": 7}
    assert manifest.corpora == ("news",)
    for shard in manifest.shards:
        data = (tmp_path / "out" / shard.name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (shard.bytes, shard.sha256)
    assert read_manifest(tmp_path / "out") == manifest


@pytest.mark.parametrize("records", [mixed(), images(5)])
def test_same_records_give_the_same_bytes(tmp_path, records):
    first = write_shards(records, tmp_path / "a", 2)
    second = write_shards(iter(records), tmp_path / "b", 2)
    assert first.fingerprint == second.fingerprint
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_bytes_of_a_shard_are_frozen(tmp_path):
    """A change of layout must be deliberate: raise FORMAT_VERSION, then this value."""
    manifest = write_shards(pairs(3), tmp_path / "out")
    assert manifest.shards[0].sha256 == "a10a77120c4f88e5d5ac386679dd7f9216f3a1cb826891774c8efd76ca95a38f"


def test_webdataset_reads_the_same_pairs(tmp_path):
    records = pairs(9)
    manifest = write_shards(records, tmp_path / "out", 4)
    urls = [str(tmp_path / "out" / shard.name) for shard in manifest.shards]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode())
    assert [sample["__key__"] for sample in samples] == [record.key for record in records]
    assert [sample["json"] for sample in samples] == [
        {"language": "sw", "source": r.source, "target": r.target, "corpus": "news"} for r in records
    ]


def test_webdataset_reads_the_same_images(tmp_path):
    records = images(4)
    write_shards(records, tmp_path / "out")
    samples = list(webdataset.WebDataset(str(tmp_path / "out" / "images-000000.tar"), shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == [record.key for record in records]
    assert [sample[record.extension] for sample, record in zip(samples, records, strict=True)] == [
        record.image for record in records
    ]


def test_archives_are_complete(tmp_path):
    write_shards(pairs(2), tmp_path / "out")
    path = tmp_path / "out" / "bitext-sw-000000.tar"
    assert path.read_bytes().endswith(bytes(1024))
    with tarfile.open(path) as archive:
        assert len(archive.getnames()) == 2


def test_dropped_records_are_recorded(tmp_path):
    with ShardFiles(tmp_path) as files:
        for record in pairs(2):
            files.add(Samples.of([record]))
        files.finish([Dropped("news", "sw", "blank", 5)])
    assert read_manifest(tmp_path).dropped == (Dropped("news", "sw", "blank", 5),)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "no record to write"),
        ([*pairs(1), *pairs(1)], "key news-sw-00000000 occurs twice"),
        ([*pairs(1), *images(1)], "images after bitext; one folder holds one kind"),
    ],
)
def test_unusable_records_leave_nothing_behind(tmp_path, records, message):
    with pytest.raises(ShardError, match=message):
        write_shards(records, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_corpus_leaves_nothing_behind(tmp_path):
    def failing():
        yield from pairs(5)
        raise CorpusError("x.sw:6: bad")

    with pytest.raises(CorpusError, match="bad"):
        write_shards(failing(), tmp_path / "out", 2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("records", [mixed(), images(9)])
@pytest.mark.parametrize(("saved", "cut"), [(0, 0), (1, 4), (5, 5), (6, 9)])
def test_put_down_and_taken_up_gives_the_same_bytes(tmp_path, records, saved, cut):
    """A state of before is gone back to, whatever was written since, whole shards included."""
    samples = [Samples.of([record]) for record in records]
    expected = write_shards(records, tmp_path / "whole", 2)
    (tmp_path / "cut").mkdir()
    with ShardFiles(tmp_path / "cut", 2) as files:
        for sample in samples[:saved]:
            files.add(sample)
        state = json.loads(json.dumps(files.state()))
        for sample in samples[saved:cut]:
            files.add(sample)
    with ShardFiles(tmp_path / "cut", 2, state) as files:
        for sample in samples[saved:]:
            files.add(sample)
        assert files.finish() == expected
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("name", ["bitext-sw-000000.tar", "bitext-sw-000001.tar"])
def test_files_that_changed_since_they_were_put_down_are_named(tmp_path, name, damage):
    with ShardFiles(tmp_path, 2) as files:
        for record in pairs(3):
            files.add(Samples.of([record]))
        state = files.state()
    damage(tmp_path / name)
    with pytest.raises(ShardError, match=rf"{name}: .*expected .* Start over with `--restart`"):
        ShardFiles(tmp_path, 2, state)


def test_existing_output_is_never_touched(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    for output, what in ((tmp_path, "holds files"), (tmp_path / "mine.txt", "is a file")):
        with pytest.raises(ShardError, match=f"already {what}.*choose another output folder, or delete"):
            write_shards(pairs(1), output)
    assert contents(tmp_path) == {"mine.txt": b"precious"}


def test_an_empty_folder_is_free(tmp_path):
    write_shards(pairs(1), tmp_path)
    assert (tmp_path / "manifest.json").exists()


def test_impossible_output_is_explained(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ShardError, match="cannot be written"):
        write_shards(pairs(1), tmp_path / "file" / "out")


def test_a_full_disk_is_explained_and_leaves_nothing(tmp_path):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    sample = len(encode(pairs(1)[0]))
    resource.setrlimit(resource.RLIMIT_FSIZE, (10 * sample, limits[1]))
    try:
        with pytest.raises(ShardError, match=r"cannot be written .* there is no such folder now"):
            write_shards(pairs(50), tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_samples_per_shard_must_be_positive(tmp_path):
    with pytest.raises(ShardError, match="samples_per_shard is 0"):
        write_shards(pairs(1), tmp_path / "out", 0)
