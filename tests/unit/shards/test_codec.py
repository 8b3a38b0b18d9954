import io
import json
import tarfile
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optical_scale.errors import ShardError
from optical_scale.records import Caption, CaptionedImage
from optical_scale.shards.codec import decode, encode
from tests.unit.shards.support import images, pairs


@pytest.mark.parametrize("record", [*pairs(2), *images(2)])
def test_decode_inverts_encode(record):
    assert decode(encode(record)) == record


def test_members_are_ordinary_tar_without_owner_or_time():
    with tarfile.open(fileobj=io.BytesIO(encode(images(1)[0]) + bytes(1024)), mode="r:") as archive:
        members = archive.getmembers()
        assert [member.name for member in members] == ["f30k-0.jpg", "f30k-0.json"]
        for member in members:
            assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
            assert member.mode == 0o644
        fields = json.load(archive.extractfile("f30k-0.json"))
    assert fields["regions"]["1"][0] == [0, 0.5, 10, 20]
    assert fields["captions"][0]["phrases"] == [{"entity": "1", "kind": "people/animals", "start": 0, "end": 8}]


@pytest.mark.parametrize("key", ["", "a.b", "a/b", "A", "é", "a" * 91, "a b", "a\n"])
def test_unsafe_keys(key):
    with pytest.raises(ShardError, match="is unsafe in a shard"):
        encode(replace(pairs(1)[0], key=key))


def test_longest_key_fits_the_header():
    record = replace(pairs(1)[0], key="k" * 90)
    assert decode(encode(record)) == record


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (replace(pairs(1)[0], language="../sw"), "no BCP-47 tag"),
        (replace(pairs(1)[0], target="\ud800"), "no UTF-8 form"),
        (replace(pairs(1)[0], negatives=("x",), scores=(1.0,)), "1 scores for a passage and 1 negatives; expected 2"),
        (replace(pairs(1)[0], scores=(float("nan"),)), "expected finite numbers"),
        (replace(images(1)[0], extension="gif"), "expected jpg or png"),
    ],
)
def test_records_that_cannot_be_stored(record, message):
    with pytest.raises(ShardError, match=message):
        encode(record)


def test_negatives_and_scores_are_fields_of_pairs_that_have_them():
    plain = pairs(1)[0]
    assert b"negatives" not in encode(plain)
    assert b"scores" not in encode(plain)
    listed = replace(plain, negatives=("mbaya", "vibaya"), scores=(3.5, -1.0, 0.125))
    assert decode(encode(listed)) == listed
    assert decode(encode(replace(listed, scores=()))) == replace(listed, scores=())
    assert decode(encode(plain)) == plain


def test_foreign_bytes_are_refused():
    sample = encode(pairs(1)[0])
    for data in (b"", sample[:560], b"x" * 1024, sample + encode(pairs(2)[1]), encode(images(1)[0])[:1536]):
        with pytest.raises(ValueError, match=r"tar header|cut short|not one sample"):
            decode(data)
    with pytest.raises(ValueError, match="do not fit"):
        decode(sample.replace(b'"source"', b'"sauces"'))


@given(st.text("0123456789abcdefghijklmnopqrstuvwxyz_-", min_size=1, max_size=90), st.binary(max_size=2000))
def test_headers_are_those_of_tarfile(key, image):
    data = encode(CaptionedImage(key, image, "jpg", 1, 1, (Caption("sw", "a"),)))
    info = tarfile.TarInfo(f"{key}.jpg")
    info.size = len(image)
    assert data[:512] == info.tobuf(tarfile.USTAR_FORMAT)
