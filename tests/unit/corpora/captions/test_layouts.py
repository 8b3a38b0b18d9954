import gzip
import json
from collections import Counter

import pytest
from PIL import Image

from optical_scale.corpora.captioned import CaptionedImagesCorpus
from optical_scale.corpora.captions.crossmodal3600 import Crossmodal3600Captions
from optical_scale.corpora.captions.flickr import FlickrCaptionFiles
from optical_scale.corpora.captions.karpathy import KarpathyCaptions
from optical_scale.corpora.captions.lines import CaptionLineFiles
from optical_scale.corpora.reader import LeftOut
from optical_scale.errors import CorpusError
from optical_scale.records import Caption

TOKEN = "1.jpg#0\tA man .\n1.jpg#1\tA\u2028person .\n2.jpg#0\tA dog .\n"


def write(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def entries(layout):
    return [(e.file, e.split, e.left_out, [(c.language, c.id, c.text) for c in e.captions]) for e in layout.entries()]


@pytest.mark.parametrize(
    "text",
    [
        TOKEN,
        "image_name| comment_number| comment\n1.jpg| 0| A man .\n1.jpg| 1| A\u2028person .\n2.jpg| 0| A dog .\n",
        # One line of the published results.csv lacks its second bar.
        "image_name| comment_number| comment\n1.jpg| 0| A man .\n1.jpg| 1   A\u2028person .\n2.jpg| 0| A dog .",
        "image,caption\n1.jpg,A man .\n1.jpg,A\u2028person .\n2.jpg,A dog .\n",
    ],
)
def test_flickr_layouts_say_the_same(tmp_path, text):
    assert entries(FlickrCaptionFiles({"en": write(tmp_path / "x", text)}, {})) == [
        ("1.jpg", "", "", [("en", "1#0", "A man ."), ("en", "1#1", "A\u2028person .")]),
        ("2.jpg", "", "", [("en", "2#0", "A dog .")]),
    ]


def test_flickr_languages_and_splits(tmp_path):
    files = {"en": write(tmp_path / "en", TOKEN), "de": write(tmp_path / "de", "3.jpg#0\tHaus\n1.jpg#0\tMann\n")}
    splits = {"train": write(tmp_path / "t", "1.jpg\n"), "val": write(tmp_path / "v", "3\n")}
    found = entries(FlickrCaptionFiles(files, splits))
    assert [(file, split, why) for file, split, why, _ in found] == [
        ("1.jpg", "train", ""),
        ("2.jpg", "", "not_in_split"),
        ("3.jpg", "val", ""),
    ]
    assert found[0][3][-1] == ("de", "1#0", "Mann")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TOKEN + "1.jpg#0\tagain\n", r"x:4: caption 1\.jpg#0 is also at .*x:1"),
        (TOKEN + "no tab\n", r"x:4: 'no tab' is no caption; expected `image\.jpg#0<TAB>"),
        ("hello\n", r"x:1: 'hello' starts no file of captions"),
        ("", r"x: the file is empty"),
        ("../1.jpg#0\tA\n", r"x:1: '\.\./1\.jpg' is no safe name"),
        (TOKEN.encode() + b"3.jpg#0\t\xff\n", r"x:4: byte 0xff"),
        ('image,caption\n1.jpg,"a\n', r"x:2: the row that starts here is malformed"),
        ("image,caption\n1.jpg,a,b\n", r"x:2: 3 fields"),
        (gzip.compress(TOKEN.encode() * 99, mtime=0)[:-20], r"x: damaged or cut short"),
    ],
)
def test_flickr_mistakes(tmp_path, text, message):
    with pytest.raises(CorpusError, match=message):
        entries(FlickrCaptionFiles({"en": write(tmp_path / "x", text)}, {}))


def test_split_mistakes(tmp_path):
    files = {"en": write(tmp_path / "en", TOKEN)}
    one, two = write(tmp_path / "one", "1\n"), write(tmp_path / "two", "2\n1\n")
    with pytest.raises(CorpusError, match=r"two:2: image 1 is also in the split 'a'"):
        entries(FlickrCaptionFiles(files, {"a": one, "b": two}))
    with pytest.raises(CorpusError, match=r"three: 1 of 1 images in splits have no caption; the first is 9"):
        entries(FlickrCaptionFiles(files, {"a": write(tmp_path / "three", "9\n")}))
    with pytest.raises(CorpusError, match=r"one:2: image 1 is also on line 1"):
        entries(FlickrCaptionFiles(files, {"a": write(one, "1\n1.jpg\n")}))


def karpathy(*images):
    return json.dumps({"dataset": "coco", "images": images})


def image(name, split, *sentences, **fields):
    rows = [{"raw": raw, "sentid": number, "tokens": raw.split()} for number, raw in sentences]
    return {"filename": name, "split": split, "sentences": rows, **fields}


def test_karpathy_splits_and_folders(tmp_path):
    text = karpathy(
        image("COCO_val2014_1.jpg", "restval", (7, "A cat. "), (8, "Cat"), filepath="val2014", cocoid=1),
        image("COCO_val2014_2.jpg", "test", (9, "A dog."), filepath="val2014"),
    )
    path = write(tmp_path / "x.json", text)
    assert entries(KarpathyCaptions(path, ("restval",))) == [
        ("val2014/COCO_val2014_1.jpg", "restval", "", [("en", "7", "A cat."), ("en", "8", "Cat")]),
        ("val2014/COCO_val2014_2.jpg", "test", "not_in_split", [("en", "9", "A dog.")]),
    ]
    with pytest.raises(CorpusError, match=r"no image is in the split 'train'; the file has restval, test"):
        entries(KarpathyCaptions(path, ("train",)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "not JSON"),
        ("{}", 'no list "images"'),
        (karpathy(image("1.jpg", None)), r"image 0: 'split' is None; expected str"),
        (
            karpathy(image("1.jpg", "val", (1, "a")), image("2.jpg", "val", (1, "b"))),
            r"sentid 1 is also that of .*image 0",
        ),
        (karpathy(image("../1.jpg", "val")), "no safe name"),
        (karpathy({"filename": "1.jpg", "split": "val", "sentences": [{}]}), r"image 0, sentence 0: 'raw' is None"),
    ],
)
def test_karpathy_mistakes(tmp_path, text, message):
    with pytest.raises(CorpusError, match=message):
        entries(KarpathyCaptions(write(tmp_path / "x", text)))


def test_lines_of_several_files(tmp_path):
    images = write(tmp_path / "list", "b.jpg\na.jpg\n")
    files = {"de": (write(tmp_path / "1", "eins\nzwei\n"), write(tmp_path / "2", "uno\ndos")), "fr": (tmp_path / "2",)}
    assert entries(CaptionLineFiles(images, files, "train")) == [
        ("b.jpg", "train", "", [("de", "b#0", "eins"), ("de", "b#1", "uno"), ("fr", "b#0", "uno")]),
        ("a.jpg", "train", "", [("de", "a#0", "zwei"), ("de", "a#1", "dos"), ("fr", "a#0", "dos")]),
    ]


def test_lists_may_repeat_an_image_under_numbered_sentences(tmp_path):
    images = write(tmp_path / "list", "a.jpg#12\na.jpg#13\n")
    files = {"de": (write(tmp_path / "1", "eins\nzwei\n"),)}
    assert entries(CaptionLineFiles(images, files)) == [
        ("a.jpg", "", "", [("de", "a#12", "eins"), ("de", "a#13", "zwei")])
    ]


@pytest.mark.parametrize(
    ("listed", "captions", "message"),
    [
        ("a.jpg\nb.jpg\n", "eins\n", r"x has 1 lines, but .*list lists 2 images; line 2 has no partner"),
        ("a.jpg\na.jpg\n", "eins\nzwei\n", r"list:2: image a\.jpg is also at .*list:1"),
        ("a.jpg\n\n", "eins\nzwei\n", r"list:2: '' is no image"),
        ("", "", r"list: the list is empty"),
        ("a.jpg\n", b"\xfe\n", r"x:1: byte 0xfe"),
    ],
)
def test_lines_mistakes(tmp_path, listed, captions, message):
    layout = CaptionLineFiles(write(tmp_path / "list", listed), {"de": (write(tmp_path / "x", captions),)})
    with pytest.raises(CorpusError, match=message):
        entries(layout)


def test_crossmodal(tmp_path):
    line = {"image/key": "0f", "sw": {"caption": ["Mtu", "Watu"]}, "en": {"caption": ["A man"]}}
    path = write(tmp_path / "x", json.dumps(line))
    assert entries(Crossmodal3600Captions(path, ("en", "sw"))) == [
        ("0f", "", "", [("en", "0f#0", "A man"), ("sw", "0f#0", "Mtu"), ("sw", "0f#1", "Watu")])
    ]
    with pytest.raises(CorpusError, match="no caption in mi"):
        entries(Crossmodal3600Captions(path, ("en", "mi")))
    with pytest.raises(CorpusError, match="Crossmodal-3600 has no 'am'"):
        Crossmodal3600Captions(path, ("am",))
    with pytest.raises(CorpusError, match=r"x:2: image 0f is also at .*x:1"):
        entries(Crossmodal3600Captions(write(path, f"{json.dumps(line)}\n{json.dumps(line)}\n")))
    with pytest.raises(CorpusError, match=r'x:1: no string "image/key"'):
        entries(Crossmodal3600Captions(write(path, "[]")))


def corpus(tmp_path, text, **options):
    (tmp_path / "images").mkdir(exist_ok=True)
    layout = FlickrCaptionFiles({"en": write(tmp_path / "x", text)}, {})
    return CaptionedImagesCorpus("c", layout, tmp_path / "images", **options)


def test_samples_carry_ids_and_everything_else_is_counted(tmp_path):
    reader = corpus(tmp_path, TOKEN + "\n3.jpg#0\tx\n4.jpg#0\t \n1.jpg#2\t \n", faults="drop")
    Image.new("RGB", (40, 30)).save(tmp_path / "images" / "1.jpg")
    content = (tmp_path / "images" / "1.jpg").read_bytes()
    write(tmp_path / "images" / "2.jpg", content[: len(content) // 2])
    record, *rest = sorted(reader, key=lambda item: isinstance(item, LeftOut))
    assert (record.key, record.image_id, record.split) == ("c-1", "1", "")
    assert record.captions == (Caption("en", "A man .", (), "1#0"), Caption("en", "A\u2028person .", (), "1#1"))
    assert reader.count() == 4
    counts = Counter()
    for item in rest:
        counts[item.language, item.reason] += item.number
    assert counts == {
        ("en", "blank"): 3,
        ("", "damaged_image"): 1,
        ("en", "damaged_image"): 1,
        ("", "missing_image"): 1,
        ("en", "missing_image"): 1,
        ("", "no_caption"): 1,
    }


def test_missing_images_are_found_before_the_first_record(tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "1.jpg")
    reader = corpus(tmp_path, TOKEN)
    with pytest.raises(CorpusError, match=r"x:1: image 1\.jpg is not in .*images; 2 of 2 images are missing"):
        next(iter(reader))
    with pytest.raises(CorpusError, match=r"x:4: image 1\.png would get the key c-1, as 1\.jpg at .*x:1"):
        corpus(tmp_path, TOKEN + "1.png#0\tx\n", faults="drop").count()
    (tmp_path / "images").rmdir()
    with pytest.raises(CorpusError, match="no such folder"):
        reader.count()
