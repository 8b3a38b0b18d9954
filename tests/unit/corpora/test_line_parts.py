"""Parts of text files: together they are the file, whatever ends up where."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optical_scale.corpora import line_parts as module
from optical_scale.corpora.line_parts import line_parts
from optical_scale.corpora.reader import read_lines
from optical_scale.errors import CorpusError

PIECES = st.sampled_from(["\n", "\r", "\r\n", "a", "bb", "\ufeff", "\u2028", "é", "\x85", "\x0b"])


@given(st.lists(PIECES, min_size=1).map("".join), st.integers(1, 4), st.integers(1, 9))
def test_parts_give_the_lines_of_the_file(tmp_path_factory, text, lines, piece_bytes):
    path = tmp_path_factory.mktemp("parts") / "x"
    path.write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_PIECE_BYTES", piece_bytes)
        parts = list(line_parts(path, lines))
    found = [part.read() for part in parts]
    assert [line for part in found for line in part] == list(read_lines(path))
    assert all(len(part) == lines for part in found[:-1])
    assert [part.line for part in parts] == [1 + i * lines for i in range(len(parts))]


def test_bad_lines_are_named_as_in_the_whole_file(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"a\nb\nc\n\xe9t\xe9\r\n")
    first, second = line_parts(path, 2)
    assert first.read() == ["a", "b"]
    with pytest.raises(CorpusError, match=r"x:4: byte 0xe9 at position 1 is not UTF-8"):
        second.read()
    (tmp_path / "y").write_bytes("é".encode("utf-16"))
    with pytest.raises(CorpusError, match=r"y:1: .*looks like UTF-16"):
        next(line_parts(tmp_path / "y", 9)).read()


def test_a_file_that_changes_meanwhile_is_refused(tmp_path):
    path = tmp_path / "x"
    path.write_text("a\nb\n")
    parts = list(line_parts(path, 1))
    path.write_text("a\nc\n")
    assert parts[0].read() == ["a"]
    with pytest.raises(CorpusError, match=r"x: the bytes from 2 to 4 have changed while the file was read"):
        parts[1].read()
    path.unlink()
    with pytest.raises(CorpusError, match=r"cannot be read"):
        parts[0].read()
