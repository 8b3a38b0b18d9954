import contextlib
import io
import json
import pickle
import tarfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from optical_scale.backbones.vision import ImageTransform, Pixels
from optical_scale.errors import ShardError
from optical_scale.records import CaptionedImage, TextPair
from optical_scale.shards.codec import KEY
from optical_scale.shards.index import index_path
from optical_scale.shards.indexing import index_folder
from optical_scale.shards.layout import Layout, safe_key
from optical_scale.shards.manifest import Dropped, read_manifest
from optical_scale.shards.reader import ShardFolder
from optical_scale.shards.remote import RemoteShards
from optical_scale.shards.spans import _any_members, _plain_members, members_of
from optical_scale.shards.verify import verify
from optical_scale.stream.collate import PairCollator
from tests.unit.shards.foreign import digests, picture, sample, write_img2dataset, write_tar
from tests.unit.stream.support import characters

IMAGES = Layout("laion", language="en", caption="txt")
PAIRS = Layout("pairs", language="sw", source="en.txt", target="sw.txt")


def test_a_folder_of_img2dataset_is_read_in_place(tmp_path):
    folder = write_img2dataset(tmp_path / "laion")
    before = digests(folder)
    manifest = index_folder(folder, IMAGES)
    assert digests(folder) == before
    assert read_manifest(folder) == manifest
    assert manifest.counts == {"en": 6}
    assert manifest.dropped == (Dropped("laion", "", "failed_to_download", 2),)
    records = list(ShardFolder(folder).select())
    assert [record.key for record in records][:4] == [
        "00000-000000000", "00000-000000001", "00000-000000002", "00001-000010000",
    ]  # fmt: skip
    first = records[1]
    assert isinstance(first, CaptionedImage)
    assert (first.image, first.width, first.height, first.extension) == (picture(21), 21, 10, "jpg")
    assert [(caption.language, caption.text) for caption in first.captions] == [("en", "Dog 1 ☃")]
    assert (first.image_id, first.corpus) == ("000000001", "laion")
    assert verify(folder) == []


def test_places_inside_the_json(tmp_path):
    folder = write_img2dataset(tmp_path / "laion", shards=1)
    index_folder(folder, Layout("laion", language_at="json.lang", caption="json.caption"))
    assert read_manifest(folder).counts == {"sw": 3}
    several = write_tar(tmp_path / "x" / "a.tar", sample("k", captions=["One.", " ", "Two."])).parent
    index_folder(several, Layout("x", language="en", caption="json.captions"))
    assert [caption.text for caption in ShardFolder(several).read(None, 0).captions] == ["One.", "Two."]
    assert read_manifest(several).counts == {"en": 2}
    assert verify(several) == []


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_bitext_in_text_members_or_json(tmp_path, form):
    long = "k" * 70
    members = [
        (f"./sub/{long}.en.txt", "A dog.\n"),
        (f"./sub/{long}.sw.txt", "Mbwa.\n"),
        ("b.en.txt", " "),
        ("b.sw.txt", "x"),
    ]
    folder = write_tar(tmp_path / "text" / "a.tar", members, form).parent
    manifest = index_folder(folder, PAIRS)
    assert manifest.dropped == (Dropped("pairs", "sw", "blank", 1),)
    assert ShardFolder(folder).read("sw", 0) == TextPair(f"a-sub_{long}", "sw", "A dog.", "Mbwa.", "pairs")
    assert verify(folder) == []
    lines = [(f"{i}.json", json.dumps({"translation": {"en": f"e{i}", "sw": f"s{i}"}})) for i in range(3)]
    folder = write_tar(tmp_path / "json" / "a.tar", lines, form).parent
    layout = Layout("pairs", language="sw", source="json.translation.en", target="json.translation.sw")
    index_folder(folder, layout)
    assert [pair.target for pair in ShardFolder(folder).select("sw")] == ["s0", "s1", "s2"]
    assert verify(folder) == []


def test_processes_give_the_same_files(tmp_path):
    one, two = (write_img2dataset(tmp_path / str(number) / "laion") for number in (1, 2))
    for path in one.glob("*.tar"):
        (two / path.name).write_bytes(path.read_bytes())
    index_folder(one, IMAGES)
    index_folder(two, IMAGES, processes=2)
    written = [path.name for path in one.iterdir()]
    assert {name: (one / name).read_bytes() for name in written} == {
        name: (two / name).read_bytes() for name in written
    }


def test_the_layout_is_part_of_the_fingerprint_and_readers_can_be_pickled(tmp_path):
    folder = write_img2dataset(tmp_path / "laion", shards=1)
    first = index_folder(folder, IMAGES)
    (folder / "manifest.json").unlink()
    second = index_folder(folder, Layout("laion", language="de", caption="txt"))
    assert first.fingerprint != second.fingerprint
    assert pickle.loads(pickle.dumps(ShardFolder(folder))).read(None, 0).captions[0].language == "de"
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["layout"]["caption"] = "json.caption"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ShardError, match="fingerprint"):
        read_manifest(folder)
    manifest["layout"]["caption"] = None
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ShardError, match=r"damaged.*expected the place"):
        read_manifest(folder)


def test_a_url_and_a_collator_know_no_difference(tmp_path):
    folder = write_img2dataset(tmp_path / "laion")
    index_folder(folder, IMAGES)
    remote = RemoteShards(folder.as_uri(), tmp_path / "cache", most_bytes=10**9)
    view = ShardFolder.fetched(remote).select()
    assert list(view) == list(ShardFolder(folder).select())
    batch = PairCollator(characters, transform_images=ImageTransform(Pixels(8), 4))(list(view))
    assert (len(batch.source), batch.languages[0]) == (6, "en")
    assert batch.target.pixels_BCHW.shape == (6, 3, 8, 8)


def link(kind, name="b.jpg"):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "../../etc/passwd"
    return info


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("../a.txt", "x")], r"member '\.\./a.txt': the name leads out"),
        ([("/etc/a.txt", "x")], "leads out"),
        ([("a/../../b.txt", "x")], "leads out"),
        ([("a\\b.txt", "x")], "leads out"),
        ([("a\x1b.txt", "x")], "leads out"),
        ([("noextension", "x")], "is no `{key}.{extension}`"),
        ([(".hidden.jpg", "x")], "is no `{key}.{extension}`"),
        ([(f"{'d' * 200}/{'f' * 80}.txt", "x")], "has 285 characters"),
        ([link(tarfile.SYMTYPE)], "member 'b.jpg': it is a link"),
        ([link(tarfile.LNKTYPE)], "it is a link"),
        ([link(tarfile.FIFOTYPE)], "it is a link, a device"),
        ([*sample("a"), *sample("b"), ("a.cls", "1")], "member 'a.cls': key 'a' occurs twice"),
        ([*sample("a"), *sample("a")], "member 'a.jpg': the sample has this member twice"),
        ([("a.jpg", picture()), ("a.JPG", picture())], "this member twice"),
        ([*sample("A"), *sample("a")], "sample 'a': another one also becomes `x-a`"),
        ([("a.jpg", picture())], r"sample 'a': no member \.txt among \['jpg'\]"),
        ([("a.txt", "A dog.")], "have 0 images"),
        ([("a.jpg", picture()), ("a.png", picture(form="PNG")), ("a.txt", "x")], "have 2 images"),
        ([("a.jpg", b"no image"), ("a.txt", "x")], "the image is damaged"),
        ([("a.jpg", picture()[:90]), ("a.txt", "x")], "the image is damaged"),
        ([("a.jpg", picture()), ("a.txt", b"\xff")], "not UTF-8"),
        ([("a.jpg", picture()), ("a.json", "{"), ("a.txt", "x")], "is no JSON"),
        ([(f"{'a' * 120}.jpg", picture()), (f"{'a' * 120}.txt", "x")], "expected at most 90"),
    ],
)
def test_what_is_refused_names_file_and_member_and_leaves_nothing(tmp_path, members, message):
    tar = write_tar(tmp_path / "f" / "x.tar", members)
    write_tar(tmp_path / "f" / "a.tar", sample("fine"))
    with pytest.raises(ShardError, match=message) as caught:
        index_folder(tar.parent, IMAGES)
    assert "x.tar" in str(caught.value)
    assert sorted(path.name for path in tar.parent.iterdir()) == ["a.tar", "x.tar"]


def test_a_tar_without_usable_samples_is_counted_and_passed_over(tmp_path):
    folder = write_img2dataset(tmp_path / "laion", shards=3)
    with tarfile.open(folder / "00001.tar", "w"):
        pass
    (folder / "00001_stats.json").write_text('{"successes": 0, "failed_to_download": 4, "failed_to_resize": 1}')
    manifest = index_folder(folder, IMAGES)
    assert [shard.name for shard in manifest.shards] == ["00000.tar", "00002.tar"]
    assert {item.reason: item.records for item in manifest.dropped} == {"failed_to_download": 6, "failed_to_resize": 1}
    assert not index_path(folder / "00001.tar").exists()
    assert verify(folder) == []
    nothing = write_tar(tmp_path / "f" / "x.tar", [*sample("a", " "), *sample("b", status="failed_to_resize")]).parent
    with pytest.raises(ShardError, match=r"no usable sample \(blank 1, failed_to_resize 1\)"):
        index_folder(nothing, IMAGES)
    write_tar(nothing / "x.tar", [])
    with pytest.raises(ShardError, match="the tars are empty"):
        index_folder(nothing, IMAGES)
    assert [path.name for path in nothing.iterdir()] == ["x.tar"]


def test_faults_can_be_left_out_and_counted(tmp_path):
    members = [
        *sample("a"),
        ("b.txt", "no image"),
        ("c.jpg", b"bad"),
        ("c.txt", "x"),
        *sample("d"),
        *sample("e", status="failed"),
    ]
    folder = write_tar(tmp_path / "f" / "x.tar", members).parent
    manifest = index_folder(folder, Layout("f", language="en", caption="txt", faults="drop"))
    assert {(item.reason, item.records) for item in manifest.dropped} == {
        ("missing_image", 1),
        ("damaged_image", 1),
        ("failed", 1),
    }
    assert [record.key for record in ShardFolder(folder).select()] == ["x-a", "x-d"]
    assert verify(folder) == []


def test_folders_between_samples_are_passed_over(tmp_path):
    folder = tarfile.TarInfo("data")
    folder.type = tarfile.DIRTYPE
    path = write_tar(tmp_path / "f" / "x.tar", [folder, *sample("data/a"), folder, *sample("data/b")]).parent
    index_folder(path, IMAGES)
    assert [record.key for record in ShardFolder(path).select()] == ["x-data_a", "x-data_b"]
    assert verify(path) == []


@pytest.mark.parametrize("kept", [0, 100, 512, 900, 1024, 1600, 2048, 3000, 4096, 5000])
def test_a_tar_that_is_cut_short(tmp_path, kept):
    tar = write_tar(tmp_path / "f" / "x.tar", [*sample("a"), *sample("b")])
    with tarfile.open(tar) as archive:
        end = max(member.offset_data + member.size for member in archive)
    assert end > 5000
    tar.write_bytes(tar.read_bytes()[:kept])
    with pytest.raises(ShardError, match=r"x\.tar"):
        index_folder(tar.parent, IMAGES)


def test_a_tar_cut_between_samples_or_with_a_broken_header_is_not_taken_for_whole(tmp_path):
    tar = write_tar(tmp_path / "f" / "x.tar", [*sample("a"), *sample("b")])
    with tarfile.open(tar) as archive:
        second = next(member.offset for member in archive if member.name.startswith("b"))
    data = tar.read_bytes()
    tar.write_bytes(data[:second])
    with pytest.raises(ShardError, match="without an end mark"):
        index_folder(tar.parent, IMAGES)
    tar.write_bytes(data[:second] + b"garbage" + data[second + 7 :])
    with pytest.raises(ShardError, match="no tar header"):
        index_folder(tar.parent, IMAGES)


def test_what_img2dataset_wrote_beside_is_compared(tmp_path):
    folder = write_img2dataset(tmp_path / "laion")
    stats = folder / "00001_stats.json"
    stats.write_text(stats.read_text().replace('"successes": 3', '"successes": 4'))
    with pytest.raises(ShardError, match=r"00001.tar: 3 samples, its statistics say 4"):
        index_folder(folder, IMAGES)
    stats.write_text("[]")
    with pytest.raises(ShardError, match=r"00001_stats.json: no statistics of img2dataset"):
        index_folder(folder, IMAGES)
    stats.unlink()
    with pytest.raises(ShardError, match=r"00001.tar: no 00001_stats.json beside it.*has not finished"):
        index_folder(folder, IMAGES)
    assert not list(folder.glob("*.index"))


def test_folders_that_cannot_be_indexed(tmp_path):
    with pytest.raises(ShardError, match=r"no \*.tar in it"):
        index_folder(tmp_path, IMAGES)
    folder = write_tar(tmp_path / "f" / "x.tar", sample("a")).parent
    index_path(folder / "x.tar").write_text("something of the user's")
    with pytest.raises(ShardError, match="is no index of ours"):
        index_folder(folder, IMAGES)
    assert index_path(folder / "x.tar").read_text() == "something of the user's"
    index_path(folder / "x.tar").unlink()
    index_path(folder / "x.tar").mkdir()
    with pytest.raises(ShardError, match="is no index of ours"):
        index_folder(folder, IMAGES)
    index_path(folder / "x.tar").rmdir()
    index_folder(folder, IMAGES)
    with pytest.raises(ShardError, match="is a shard folder already"):
        index_folder(folder, IMAGES)
    mixed = write_tar(
        tmp_path / "m" / "x.tar", [("a.json", '{"l":"sw","s":"x","t":"y"}'), ("b.json", '{"l":"de","s":"x","t":"y"}')]
    )
    with pytest.raises(ShardError, match="pairs in de, sw; a shard of bitext has one language"):
        index_folder(mixed.parent, Layout("m", language_at="json.l", source="json.s", target="json.t"))
    write_tar(tmp_path / "n" / "A.tar", sample("a"))
    write_tar(tmp_path / "n" / "a.tar", sample("a"))
    with pytest.raises(ShardError, match=r"its keys would be those of A\.tar"):
        index_folder(tmp_path / "n", IMAGES)


def test_verify_finds_harm(tmp_path):
    folder = write_img2dataset(tmp_path / "laion")
    index_folder(folder, IMAGES)
    index_path(folder / "00000.tar").write_bytes(index_path(folder / "00001.tar").read_bytes()[:-16])
    write_tar(folder / "new.tar", sample("a"))
    problems = verify(folder)
    assert len(problems) == 2
    assert "new.tar: 1 samples, not in the manifest; move it away" in problems[0]
    assert "not the index of 00000.tar" in problems[1]


@settings(max_examples=300, deadline=None)
@given(
    names=st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=120),
        min_size=1,
        max_size=3,
        unique=True,
    ),
    contents=st.lists(st.binary(max_size=1100), min_size=3, max_size=3),
    form=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    flips=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=2),
    cut=st.integers(0, 3000) | st.just(0),
)
def test_the_fast_way_reads_what_tarfile_reads(names, contents, form, flips, cut):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, content in zip(names, contents, strict=False):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), 1.5
            archive.addfile(info, io.BytesIO(content))
        end = archive.offset
    data = bytearray(buffer.getvalue()[:end])
    fast = _plain_members(bytes(data))
    assert fast is None or fast == _any_members(bytes(data))
    assert fast is not None or not all(name.isascii() and len(name) <= 100 for name in names)
    for position, value in flips:
        data[position % len(data)] = value
    with contextlib.suppress(ValueError):  # whatever is damaged is no sample, or another one
        members_of(bytes(data[: len(data) - cut]))


NAMES = st.one_of(
    st.text(max_size=40),
    st.lists(
        st.sampled_from(["..", ".", "a", "B", "é", "dir", "", "x.y", "\\", "\n", " "]), min_size=1, max_size=4
    ).map("/".join),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.lists(NAMES, min_size=1, max_size=3),
    extensions=st.lists(st.sampled_from(["txt", "en.txt", "TXT"]), min_size=1),
)
def test_any_names_give_safe_keys_or_one_error(tmp_path_factory, names, extensions):
    folder = tmp_path_factory.mktemp("names") / "inside"
    members = [(f"{name}.{extension}", "text") for name in names for extension in dict.fromkeys(extensions)]
    try:
        write_tar(folder / "x.tar", [member for member in members if "\0" not in member[0]])
    except (ValueError, UnicodeError):  # what tarfile itself cannot store
        return
    layout = Layout("n", language="sw", source="txt", target="txt")
    try:
        manifest = index_folder(folder, layout)
    except ShardError:
        assert [path.name for path in folder.iterdir()] == ["x.tar"]
    else:
        keys = [record.key for record in ShardFolder(folder).select("sw")]
        assert len(set(keys)) == len(keys) == manifest.samples
        assert all(KEY.fullmatch(key) for key in keys)
        assert verify(folder) == []
    assert [path.name for path in folder.parent.iterdir()] == ["inside"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 10_239), value=st.integers(0, 255), length=st.integers(1, 600))
def test_damaged_tars_give_records_or_one_error(tmp_path_factory, position, value, length):
    folder = tmp_path_factory.mktemp("damage")
    write_tar(folder / "x.tar", [("a.txt", "text"), ("b.txt", "b" * 600), ("c.json", "{}"), ("c.txt", "c")])
    data = bytearray((folder / "x.tar").read_bytes())
    data[position : position + length] = bytes([value]) * len(data[position : position + length])
    (folder / "x.tar").write_bytes(data)
    try:
        index_folder(folder, Layout("n", language="sw", source="txt", target="txt"))
    except ShardError as error:
        told = str(error)
    else:
        told = "x.tar"
        assert list(ShardFolder(folder).select("sw"))
    assert "x.tar" in told


def test_layouts_that_contradict_themselves():
    for wrong in (
        {"language": "en"},
        {"caption": "txt"},
        {"language": "en", "language_at": "json.l", "caption": "txt"},
        {"language": "en", "source": "a"},
        {"language": "en", "source": "a", "target": "b", "caption": "txt"},
        {"language": "../en", "caption": "txt"},
        {"language": "en", "caption": "txt", "faults": "ignore"},
    ):
        with pytest.raises(ValueError, match=r"expected|no BCP-47"):
            Layout("x", **wrong)
    assert safe_key("train.0001.tar", "Dir/Key é") == "train_0001-dir_key__"


def test_sparse_and_oversized_headers_do_not_exhaust_memory(tmp_path):
    info = tarfile.TarInfo("a.txt")
    info.size = 0
    header = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    header[124:136] = b"77777777777\0"
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "x.tar").write_bytes(bytes(header) + io.BytesIO(bytes(1024)).read())
    with pytest.raises(ShardError, match=r"x\.tar: after 'a\.txt'"):
        index_folder(tmp_path, IMAGES)
