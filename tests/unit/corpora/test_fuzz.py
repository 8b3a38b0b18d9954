"""Any bytes at all: a reader yields records or raises an error of the project, and ends."""

import re

import pytest

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from optical_scale.corpora.bible import BibleCorpus  # noqa: E402
from optical_scale.corpora.captioned import CaptionedImagesCorpus  # noqa: E402
from optical_scale.corpora.captions.crossmodal3600 import Crossmodal3600Captions  # noqa: E402
from optical_scale.corpora.captions.flickr import FlickrCaptionFiles  # noqa: E402
from optical_scale.corpora.captions.karpathy import KarpathyCaptions  # noqa: E402
from optical_scale.corpora.captions.lines import CaptionLineFiles  # noqa: E402
from optical_scale.corpora.entity_boxes import read_annotation  # noqa: E402
from optical_scale.corpora.flickr30k_entities import read_captions  # noqa: E402
from optical_scale.corpora.jsonl import JsonLinesCorpus  # noqa: E402
from optical_scale.corpora.moses import MosesCorpus  # noqa: E402
from optical_scale.corpora.opus import OpusCorpus  # noqa: E402
from optical_scale.corpora.parquet import ParquetCorpus  # noqa: E402
from optical_scale.corpora.pictures import PictureRule, read_picture  # noqa: E402
from optical_scale.corpora.reader import LeftOut  # noqa: E402
from optical_scale.corpora.squad import SquadCorpus  # noqa: E402
from optical_scale.corpora.table import TableCorpus  # noqa: E402
from optical_scale.corpora.tmx import TmxCorpus  # noqa: E402
from optical_scale.corpora.xliff import XliffCorpus  # noqa: E402
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

PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x02\x00\x00\x00\x02\x08\x03\x00\x00\x00"
WORDS += [
    b"a.jpg#0\tA man", b"../a.jpg#1\tx", b"/a|0|b", b"image_name| comment_number| comment\n", b"image,caption\n", b"#",
    b"]}", b'{"image/key": "k", "sw": {"caption": ["a"]}}', b'{"images": [', b'{"filename": "a.jpg", "split": "s",',
    b'"sentences": [{"raw": "a", "sentid": 1}]', b"|", PNG, b"GIF89a\x02\x00\x02\x00\x00\x00\x00", b"\xff\xd8\xff\xe0",
    b"RIFF\x00\x00\x00\x00WEBPVP8 ", b"</annotation>",
    b'<file source-language="en" target-language="sw">', b"<trans-unit>", b"<source>", b"</source>", b"<target>",
    b"</target>", b"</trans-unit>", b"<alt-trans>", b"<segment>", b"</bndbox></object>", b"<scene>1</scene>",
]  # fmt: skip
CONTENT = st.one_of(CONTENT, st.lists(st.sampled_from(WORDS), max_size=40).map(b"".join))


def unread(layout, path):
    """Records of a layout whose images are all missing: no file is opened for a name that it gives."""
    return CaptionedImagesCorpus("f", layout, path.parent, faults="drop")


READERS = {
    "bible": lambda path: BibleCorpus("f", path, path, "sw"),
    "captions": lambda path: unread(FlickrCaptionFiles({"en": path}, {}), path),
    "captions in lines": lambda path: unread(CaptionLineFiles(path, {"de": (path,)}), path),
    "crossmodal3600": lambda path: unread(Crossmodal3600Captions(path), path),
    "karpathy": lambda path: unread(KarpathyCaptions(path), path),
    "picture": lambda path: read_picture(path, PictureRule(short_side=2)) and [],
    "csv": lambda path: TableCorpus("f", path, "sw", "en", "sw", delimiter=",", quoted=True),
    "tsv": lambda path: TableCorpus("f", path, "sw", "en", "sw", columns=("en", "sw")),
    "entities boxes": lambda path: read_annotation(path, (9, 9)) and [],
    "entities captions": lambda path: read_captions(path, "en") and [],
    "jsonl": lambda path: JsonLinesCorpus("f", path, "sw", "en", "sw"),
    "moses": lambda path: MosesCorpus("f", path, path, "sw"),
    "opus": lambda path: OpusCorpus("f", path, "sw"),
    "parquet": lambda path: ParquetCorpus("f", path, "sw", "en", "sw"),
    "squad": lambda path: SquadCorpus("f", path, path, "sw"),
    "tmx": lambda path: TmxCorpus("f", path, "sw"),
    "xliff": lambda path: XliffCorpus("f", path, "sw"),
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
            if not isinstance(record, LeftOut):
                encode(record)
    except OpticalScaleError as found:
        message = str(found)
    assert re.search("fuzzed|f-sw", message)
