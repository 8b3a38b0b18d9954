import multiprocessing
import os
import pickle
import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from optical_scale.errors import ShardError
from optical_scale.shards import reader
from optical_scale.shards.reader import ShardFolder
from optical_scale.shards.writer import write_shards
from tests.unit.shards.support import images, pairs


@pytest.fixture
def bitext(tmp_path):
    write_shards([*pairs(10, "tl"), *pairs(5, "sw")], tmp_path / "out", 3)
    return ShardFolder(tmp_path / "out")


def test_random_access_agrees_with_what_was_written(bitext):
    assert bitext.languages == ("sw", "tl")
    assert (bitext.samples("tl"), bitext.samples("sw"), bitext.samples()) == (10, 5, 15)
    expected = pairs(10, "tl")
    for index in random.Random(0).sample(range(10), 10):
        assert bitext.read("tl", index) == expected[index]
    assert list(bitext.iterate("tl")) == list(bitext.select("tl")) == expected
    assert list(bitext.select()) == [*pairs(5, "sw"), *expected]


def test_views_are_sequences(bitext):
    view = bitext.select("sw")
    fingerprint = bitext.manifest.fingerprint[:12]
    corpora = "+".join(bitext.manifest.corpora)
    assert (len(view), view.name, view.language) == (5, f"{corpora}:sw@{fingerprint}", "sw")
    assert bitext.select().name == f"{corpora}:all@{fingerprint}"
    assert sum(view.shard_sizes) == 5
    assert view[-1] == view[4]
    for index in (5, -6):
        with pytest.raises(IndexError, match=r"news:sw@.*, which has 5"):
            view[index]


def test_unknown_language_lists_the_known(bitext):
    with pytest.raises(ShardError, match="nothing in language `fr`; it has sw, tl"):
        bitext.select("fr")


def test_images_are_selected_whole(tmp_path):
    records = images(5)
    write_shards(records, tmp_path / "out", 2)
    folder = ShardFolder(tmp_path / "out")
    assert folder.languages == ("de", "en")
    assert list(folder.select("de")) == list(folder.select()) == records
    with pytest.raises(ShardError, match="nothing in language `fr`"):
        folder.select("fr")


def open_files(folder):
    return sum(
        os.path.realpath(f"/proc/self/fd/{number}").startswith(str(folder)) for number in os.listdir("/proc/self/fd")
    )


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files the Linux way")
def test_few_files_stay_open(tmp_path):
    write_shards(pairs(100), tmp_path / "out", 1)
    folder = ShardFolder(tmp_path / "out")
    assert list(folder.select("sw")) == pairs(100)
    assert open_files(tmp_path) == 32
    folder.close()
    assert open_files(tmp_path) == 0
    assert folder.read("sw", 99) == pairs(100)[99]


def test_pickled_copies_read_on_their_own(bitext):
    bitext.read("sw", 0)
    copy = pickle.loads(pickle.dumps(bitext.select("sw")))
    bitext.close()
    assert list(copy) == pairs(5, "sw")


def _read_all(view, seed, queue):
    order = random.Random(seed).choices(range(len(view)), k=300)
    queue.put(all(view[index] == pairs(10, "tl")[index] for index in order))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_do_not_disturb_each_other(bitext, method):
    view = bitext.select("tl")
    view[0]  # the parent's files are open when it forks
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    processes = [context.Process(target=_read_all, args=(view, seed, queue)) for seed in range(2)]
    for process in processes:
        process.start()
    assert [queue.get(timeout=30) for _ in processes] == [True, True]
    for process in processes:
        process.join()


def damage(path, position, new):
    data = bytearray(path.read_bytes())
    data[position : position + len(new)] = new
    path.write_bytes(data)


def test_all_folders_of_a_process_share_one_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "PIECES", reader.Pieces(4))
    expected = [pairs(600, language) for language in ("sw", "tl", "de")]
    for number, records in enumerate(expected):
        write_shards(records, tmp_path / str(number), 100)
    folders = [ShardFolder(tmp_path / str(number)) for number in range(3)]
    # Threads of their own: a training stream and an evaluation read at the same time.
    orders = [random.Random(number).choices(range(600), k=1500) for number in range(3)]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda folder, order: [folder.select()[i] for i in order], folders, orders))
    assert found == [[records[i] for i in order] for records, order in zip(expected, orders, strict=True)]
    assert len(reader.PIECES) <= 4


def test_a_rewritten_shard_is_read_anew(tmp_path):
    for language in ("sw", "tl"):
        write_shards(pairs(10, language), tmp_path / language, 100)
    folder = ShardFolder(tmp_path / "sw")
    assert list(folder.select()) == pairs(10, "sw")
    folder.close()
    (tmp_path / "tl" / "bitext-tl-000000.tar").rename(tmp_path / "sw" / "bitext-sw-000000.tar")
    with pytest.raises(ShardError, match="the bytes differ"):
        folder.select()[3]


ADVICE = r"run `optical-scale verify .*out`, then copy or convert"


def test_truncated_shard(bitext):
    path = bitext.path / "bitext-sw-000000.tar"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ShardError, match=rf"bitext-sw-000000\.tar has 2,000 bytes, expected 4,096; {ADVICE}"):
        bitext.read("sw", 0)


def test_one_wrong_bit_is_found_where_it_is(bitext):
    damage(bitext.path / "bitext-sw-000000.tar", 1024 + 520, b"\x00")
    bitext.read("sw", 0)
    with pytest.raises(ShardError, match=rf"bitext-sw-000000\.tar, sample 1: the bytes differ .*{ADVICE}"):
        bitext.read("sw", 1)


@pytest.mark.parametrize("name", ["bitext-sw-000001.tar", "bitext-sw-000001.tar.index"])
def test_missing_file(bitext, name):
    (bitext.path / name).unlink()
    with pytest.raises(ShardError, match=rf"{name}: No such file.*{ADVICE}"):
        bitext.read("sw", 4)


def test_damaged_index(bitext):
    path = bitext.path / "bitext-sw-000000.tar.index"
    damage(path, 16 + 16, b"\xff")
    with pytest.raises(ShardError, match="sample 1: the bytes differ"):
        bitext.read("sw", 1)
    damage(path, 0, b"other")
    with pytest.raises(ShardError, match="no index of this format"):
        ShardFolder(bitext.path).read("sw", 0)


def test_folder_without_manifest(tmp_path):
    with pytest.raises(ShardError, match="no manifest"):
        ShardFolder(tmp_path)
