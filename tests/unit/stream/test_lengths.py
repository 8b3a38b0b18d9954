import numpy as np
import pytest

from optical_scale.errors import ShardError, StreamError
from optical_scale.runtime.world import World
from optical_scale.stream import lengths
from optical_scale.stream.lengths import LengthTables
from tests.unit.stream.support import ListSource


def measure(records):
    measure.calls += len(records)
    return np.array([(len(record.source), len(record.target)) for record in records])


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    measure.calls = 0
    monkeypatch.setattr(lengths, "PART", 16)
    monkeypatch.setattr(lengths, "_AT_ONCE", 5)


def tables(folder, digest="t", **changes):
    return LengthTables(folder, [ListSource("a", "sw", 40, **changes), ListSource("b", "de", 17)], digest)


def test_counts_of_all_ranks_together_are_those_of_the_samples(tmp_path):
    assert sum(tables(tmp_path).count(measure, World(rank, 3)) for rank in range(3)) == 57
    found = tables(tmp_path).of(0, np.array([39, 0, 17, 17]))
    assert found.tolist() == [[4, 4], [3, 2], [4, 4], [4, 4]]
    assert tables(tmp_path).of(1, np.arange(17))[:, 1].tolist() == [2] * 10 + [4] * 7


def test_what_was_counted_is_not_counted_again(tmp_path):
    tables(tmp_path).count(measure, World(0, 2))
    before = measure.calls
    assert tables(tmp_path).count(measure, World()) == 57 - before
    assert tables(tmp_path).count(measure, World()) == 0
    assert tables(tmp_path, digest="another tokenizer").count(measure, World()) == 57


def test_an_unreadable_sample_stops_or_counts_as_one_token(tmp_path):
    with pytest.raises(ShardError, match="sample 7"):
        tables(tmp_path, broken=7).count(measure, World())
    broken = tables(tmp_path, broken=7)
    broken.count(measure, World(), tolerant=True)
    assert broken.of(0, np.array([6, 7, 8])).tolist() == [[3, 2], [1, 1], [3, 2]]


def test_missing_and_foreign_tables_are_refused(tmp_path):
    with pytest.raises(StreamError, match="must be one that all ranks see"):
        tables(tmp_path).of(0, np.array([0]))
    tables(tmp_path).count(measure, World())
    for path in tmp_path.rglob("000002.npy"):
        np.save(path, np.zeros((3, 2), np.uint32))
    with pytest.raises(StreamError, match=r"shape \(3, 2\), expected \(8, 2\)"):
        tables(tmp_path).of(0, np.array([35]))
