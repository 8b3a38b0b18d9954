import random

import pytest

from optical_scale.corpora.seen import SeenDigests
from optical_scale.errors import CorpusError


def test_agrees_with_a_set_up_to_its_capacity(tmp_path):
    random.seed(7)
    digests = [random.choice([0, 1, 2**64 - 1, random.getrandbits(8), random.getrandbits(64)]) for _ in range(3_000)]
    expected: set[int] = set()
    with SeenDigests(len({digest or 1 for digest in digests}), tmp_path) as seen:
        for digest in digests:
            assert (digest in seen) == ((digest or 1) in expected)
            assert seen.add(digest) == ((digest or 1) not in expected)
            expected.add(digest or 1)
        with pytest.raises(CorpusError, match="more texts than were counted"):
            seen.add(12345678901234567)


def test_the_file_has_no_name_even_while_it_is_used(tmp_path):
    with SeenDigests(10, tmp_path):
        assert list(tmp_path.iterdir()) == []


def test_no_room(tmp_path):
    with pytest.raises(CorpusError, match=r"missing: no room for 0\.0 GB .* among 10 texts"):
        SeenDigests(10, tmp_path / "missing")
    with pytest.raises(CorpusError, match="no room for"):
        SeenDigests(2**58, tmp_path)
