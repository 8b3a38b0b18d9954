import pytest

from optical_scale.corpora.reader import count_lines, read_lines
from optical_scale.errors import CorpusError

zstandard = pytest.importorskip("zstandard")
TEXT = "".join(f"line {i}\u2028\n" for i in range(50_000)).encode()


def test_frames_follow_each_other(tmp_path):
    (tmp_path / "x").write_bytes(zstandard.compress(TEXT) + zstandard.compress(b"last\n"))
    assert "\n".join(read_lines(tmp_path / "x")).encode() == TEXT + b"last"
    assert count_lines(tmp_path / "x") == 50_001


@pytest.mark.parametrize("spoil", [lambda data: data[:-20], lambda data: data[:99] + b"\xff" * 50 + data[149:]])
def test_damage_is_an_error_not_a_short_corpus(tmp_path, spoil):
    (tmp_path / "x").write_bytes(spoil(zstandard.ZstdCompressor(write_checksum=True).compress(TEXT)))
    with pytest.raises(CorpusError, match="damaged or cut short"):
        count_lines(tmp_path / "x")
