"""Any bytes at all: a reader yields records or raises an error of the project, and ends."""

import re

import pytest

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from optical_scale.corpora.bible import BibleCorpus  # noqa: E402
from optical_scale.corpora.flickr30k_entities import read_captions, read_regions  # noqa: E402
from optical_scale.corpora.jsonl import JsonLinesCorpus  # noqa: E402
from optical_scale.corpora.moses import MosesCorpus  # noqa: E402
from optical_scale.corpora.opus import OpusCorpus  # noqa: E402
from optical_scale.corpora.parquet import ParquetCorpus  # noqa: E402
from optical_scale.corpora.squad import SquadCorpus  # noqa: E402
from optical_scale.corpora.table import TableCorpus  # noqa: E402
from optical_scale.corpora.tmx import TmxCorpus  # noqa: E402
from optical_scale.errors import OpticalScaleError  # noqa: E402
from optical_scale.shards.codec import encode  # noqa: E402

WORDS = [
    b"<tmx>", b"<tu>", b"</tu>", b'<tuv xml:lang="en">', b'<tuv lang="sw">', b"</tuv>", b"<seg>", b"</seg>", b"<ph>",
    b'<seg id="b.1">', b"<ept/>", b"&amp;", b"&x;", b'<!DOCTYPE a [<!ENTITY x "y">]>', b"<!DOCTYPE t SYSTEM 'x.dtd'>",
    b"<?xml version='1.0' encoding='utf-16'?>", b"<annotation>", b"<size><width>9</width><height>9</height></size>",
    b"<object><name>1</name><bndbox><xmin>", b"1e999", b"nan", b"[/EN#1/people a]", b"[/EN#", b"]", b"[", b"{", b"}",
    b'"en":', b'"sw":', b'"data":', b'"paragraphs":', b'"qas":', b'"id":', b"null", b'"\\ud800"', b"\x1f\x8b\x08",
    b"(\xb5/\xfd", b"BZh91AY&SY", b"\xfd7zXZ\x00", b"PK\x03\x04", b"PK\x05\x06", b"PAR1", b"en\tsw\n", b"en,sw\n",
    b'"', b"\t", b",", b"\n", b"\r", b"\x00", b"\xe2\x80\xa8", b"\xff\xfe", b"\xef\xbb\xbf", b"a", b"\xc3\xa9",
]  # fmt: skip
CONTENT = st.one_of(st.binary(max_size=300), st.lists(st.sampled_from(WORDS), max_size=40).map(b"".join))

READERS = {
    "bible": lambda path: BibleCorpus("f", path, path, "sw"),
    "csv": lambda path: TableCorpus("f", path, "sw", "en", "sw", delimiter=",", quoted=True),
    "tsv": lambda path: TableCorpus("f", path, "sw", "en", "sw", columns=("en", "sw")),
    "entities boxes": lambda path: read_regions(path, (9, 9)) and [],
    "entities captions": lambda path: read_captions(path, "en") and [],
    "jsonl": lambda path: JsonLinesCorpus("f", path, "sw", "en", "sw"),
    "moses": lambda path: MosesCorpus("f", path, path, "sw"),
    "opus": lambda path: OpusCorpus("f", path, "sw"),
    "parquet": lambda path: ParquetCorpus("f", path, "sw", "en", "sw"),
    "squad": lambda path: SquadCorpus("f", path, path, "sw"),
    "tmx": lambda path: TmxCorpus("f", path, "sw"),
}


@pytest.mark.parametrize("reader", READERS)
@settings(max_examples=60, deadline=5_000, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
@given(content=CONTENT)
def test_any_bytes_give_records_or_an_error_that_names_the_file(tmp_path, reader, content):
    path = tmp_path / "fuzzed"
    path.write_bytes(content)
    message = str(path)
    try:
        for record in READERS[reader](path):
            encode(record)
    except OpticalScaleError as found:
        message = str(found)
    assert re.search("fuzzed|f-sw", message)
