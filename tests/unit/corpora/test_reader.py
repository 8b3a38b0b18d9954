import bz2
import gzip
import lzma

import pytest

from optical_scale.corpora.reader import check_language, count_lines, read_lines, sanitize_key
from optical_scale.errors import CorpusError

# Characters at which str.splitlines cuts, but Moses tools do not.
TRAPS = "a\u2028b\nc\x85d\x0be\x0cf\x1cg\u2029h\ni\rj\n"


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_only_newline_ends_a_line(tmp_path):
    path = write(tmp_path / "x", TRAPS)
    assert list(read_lines(path)) == TRAPS[:-1].split("\n")
    assert count_lines(path) == 3 < len(TRAPS.splitlines())


@pytest.mark.parametrize("content", ["", "\n", "a", "a\n", "a\n\n", "\na", "a\r\nb", TRAPS, "é\n" * 70_000])
def test_counting_agrees_with_reading(tmp_path, content):
    path = write(tmp_path / "x", content)
    assert count_lines(path) == len(list(read_lines(path)))


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_compression_is_recognised_whatever_the_name(tmp_path, compress):
    path = write(tmp_path / "plain.txt", compress(TRAPS.encode()))
    assert list(read_lines(path)) == TRAPS[:-1].split("\n")
    assert count_lines(path) == 3


def test_byte_order_mark_and_carriage_returns_are_removed(tmp_path):
    path = write(tmp_path / "x", b"\xef\xbb\xbfone\r\ntwo\r\n")
    assert list(read_lines(path)) == ["one", "two"]


def test_wrong_encoding_names_file_line_and_remedy(tmp_path):
    path = write(tmp_path / "x", b"fine\ncaf\xe9\n")
    with pytest.raises(CorpusError, match=r"x:2: byte 0xe9 at position 4 is not UTF-8; .*iconv -f LATIN1"):
        list(read_lines(path))


def test_utf16_is_recognised(tmp_path):
    with pytest.raises(CorpusError, match=r"x:1: .*UTF-16.*iconv -f UTF-16"):
        list(read_lines(write(tmp_path / "x", "hello\n".encode("utf-16"))))


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("read", [count_lines, lambda path: list(read_lines(path))])
def test_truncated_archive_is_an_error_not_a_short_corpus(tmp_path, compress, read):
    packed = compress("".join(f"line {i}\n" for i in range(5000)).encode())
    with pytest.raises(CorpusError, match="damaged or cut short"):
        read(write(tmp_path / "x", packed[: len(packed) // 2]))


def test_missing_file(tmp_path):
    with pytest.raises(CorpusError, match=r"absent: cannot be read .*check the path"):
        count_lines(tmp_path / "absent")


@pytest.mark.parametrize("tag", ["sw", "ceb", "pt-BR", "zh-Hans", "zh-Hant-TW", "es-419", "sl-rozaj"])
def test_usual_tags_pass(tag):
    assert check_language(tag) == tag


@pytest.mark.parametrize(
    ("tag", "usual"), [("SW", "sw"), ("pt_br", "pt-BR"), ("zh-hans", "zh-Hans"), ("zh_HANT_tw", "zh-Hant-TW")]
)
def test_other_spellings_are_refused_with_the_usual_one(tag, usual):
    with pytest.raises(CorpusError, match=f"write `{usual}`"):
        check_language(tag)


@pytest.mark.parametrize("tag", ["", "swahili!", "s", "../x", "en/sw"])
def test_nonsense_tags_are_refused(tag):
    with pytest.raises(CorpusError, match="expected for example"):
        check_language(tag)


def test_keys_hold_nothing_that_webdataset_cuts():
    assert sanitize_key("Img.v1/Ünïcode-01") == "img_v1__n_code-01"
