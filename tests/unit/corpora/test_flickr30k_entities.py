import io
import os
import warnings
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from optical_scale.corpora.entity_boxes import read_annotation
from optical_scale.corpora.flickr30k_entities import Flickr30kEntitiesCorpus, read_captions
from optical_scale.corpora.pictures import PictureRule
from optical_scale.corpora.reader import LeftOut
from optical_scale.errors import CorpusError
from optical_scale.records import Box, Caption, CaptionedImage, Phrase

SENTENCE = "[/EN#1/people/animals Two dogs] near [/EN#0/notvisual it] and [/EN#2/scene a beach] ."
ANNOTATION = """<annotation>
  <size><width>100</width><height>50</height><depth>3</depth></size>
  <object><name>1</name><name>3</name>
    <bndbox><xmin>1</xmin><ymin>1</ymin><xmax>100</xmax><ymax>50</ymax></bndbox></object>
  <object><name>1</name><bndbox><xmin>11</xmin><ymin>6</ymin><xmax>20</xmax><ymax>10</ymax></bndbox></object>
  <object><name>2</name><scene>1</scene><nobndbox>1</nobndbox></object>
</annotation>"""


def picture(size=(100, 50), kind="JPEG"):
    buffer = io.BytesIO()
    Image.effect_noise(size, 60).convert("RGB").save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    for name in ("images", "Sentences", "Sentences_de", "Annotations"):
        (tmp_path / name).mkdir()
    for image_id in ("10", "7"):
        (tmp_path / "images" / f"{image_id}.jpg").write_bytes(picture())
        (tmp_path / "Sentences" / f"{image_id}.txt").write_text(SENTENCE + "\nA plain caption .\n")
        (tmp_path / "Sentences_de" / f"{image_id}.txt").write_text("[/EN#1/people Zwei Hunde] am Strand .\n")
        (tmp_path / "Annotations" / f"{image_id}.xml").write_text(ANNOTATION)
    (tmp_path / "train.txt").write_text("10\n7\n")
    return tmp_path


def corpus(folder, **options):
    return Flickr30kEntitiesCorpus("f30k", folder, folder / "train.txt", **options)


def images(reader):
    return [record for record in reader if isinstance(record, CaptionedImage)]


def left_out(reader):
    return [record for record in reader if isinstance(record, LeftOut)]


def test_captions_phrases_and_boxes(folder):
    first, second = images(corpus(folder, languages=("en", "de")))
    assert (first.key, second.key, first.corpus) == ("f30k-10", "f30k-7", "f30k")
    assert (first.extension, first.width, first.height) == ("jpg", 100, 50)
    assert first.image == (folder / "images" / "10.jpg").read_bytes()
    assert [caption.language for caption in first.captions] == ["en", "en", "de"]
    caption = first.captions[0]
    assert caption.text == "Two dogs near it and a beach ."
    assert [(p.entity, p.kind, caption.text[p.start : p.end]) for p in caption.phrases] == [
        ("1", "people/animals", "Two dogs"),
        ("0", "notvisual", "it"),
        ("2", "scene", "a beach"),
    ]
    assert first.captions[1] == Caption("en", "A plain caption .", (), "10#1")
    assert first.captions[2] == Caption("de", "Zwei Hunde am Strand .", (Phrase("1", "people", 0, 10),), "10#0")
    assert (first.image_id, first.split) == ("10", "train")
    assert first.regions == {"1": (Box(0, 0, 100, 50), Box(10, 5, 20, 10)), "3": (Box(0, 0, 100, 50),)}


def test_boxes_follow_a_resized_image(folder):
    regions = read_annotation(folder / "Annotations" / "10.xml", (200, 100)).regions
    assert regions["1"][1] == Box(20, 10, 40, 20)
    with pytest.raises(CorpusError, match=r"10\.xml: describes a picture of 100x50 pixels, the image has 50x100"):
        read_annotation(folder / "Annotations" / "10.xml", (50, 100))


def test_png_and_wrong_suffix_are_told_by_content(folder):
    (folder / "images" / "10.jpg").write_bytes(picture(kind="PNG"))
    assert next(iter(corpus(folder))).extension == "png"


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("10\n7\n10\n", r"train\.txt:3: image 10 is also on line 1"),
        ("10\n..\n", r"train\.txt:2: '\.\.' is no safe name"),
        ("\n", r"train\.txt: the file is empty"),
        ("10\n8\n9\n", r"lists 3 images, but 2 have no file .*images/\{id\}\.jpg; the first is 8"),
    ],
)
def test_split_mistakes(folder, split, message):
    (folder / "train.txt").write_text(split)
    with pytest.raises(CorpusError, match=message):
        corpus(folder).count()


def test_missing_parts_are_found_before_the_first_record(folder):
    with pytest.raises(CorpusError, match=r"2 have no file .*Sentences_fr/\{id\}\.txt"):
        corpus(folder, languages=("fr",)).count()
    with pytest.raises(CorpusError, match="no such folder"):
        corpus(folder, images=folder / "absent").count()
    (folder / "Annotations" / "7.xml").unlink()
    with pytest.raises(CorpusError, match=r"1 have no file .*\{id\}\.xml; the first is 7"):
        next(iter(corpus(folder)))


@pytest.mark.parametrize(
    "line",
    [
        "[/EN#1/people Two dogs",
        "[/EN#1 Two dogs]",
        "[/EN#1/people [/EN#2/other a] b]",
        "[/DE#1/people Hunde]",
        "[EN#1/other a]",
    ],
)
def test_malformed_phrase_names_file_and_line(tmp_path, line):
    (tmp_path / "1.txt").write_text(f"Fine .\n{line}\n")
    with pytest.raises(CorpusError, match=r"1\.txt:2: malformed phrase"):
        read_captions(tmp_path / "1.txt", "en")


def test_file_without_captions(tmp_path):
    (tmp_path / "1.txt").write_text("\n")
    with pytest.raises(CorpusError, match="no caption"):
        read_captions(tmp_path / "1.txt", "en")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<annotation>", '<!DOCTYPE a [<!ENTITY b "c">]><annotation>', "DOCTYPE"),
        ("</annotation>", "", r"10\.xml:\d+: not well-formed"),
        ("<xmin>11</xmin>", "<xmin>eleven</xmin>", r"<bndbox/xmin> is 'eleven'"),
        ("<xmin>11</xmin>", "<xmin>21</xmin>", r"object 2: box \(21, 6, 20, 10\) is empty or outside"),
        ("<name>2</name>", "", "object 3 has no <name>"),
        ("<xmin>11</xmin>", "<xmin>nan</xmin>", r"<bndbox/xmin> is 'nan'"),
        ("<xmax>20</xmax>", "<xmax>107</xmax>", r"object 2: box \(11, 6, 107, 10\) is empty or outside"),
        ("<scene>1</scene><nobndbox>1</nobndbox>", "", r"object 3 has no <bndbox>"),
        ("<size><width>100</width>", "<size>", r"<size/width> is None"),
    ],
)
def test_malformed_annotation(folder, old, new, message):
    path = folder / "Annotations" / "10.xml"
    path.write_text(ANNOTATION.replace(old, new, 1))
    with pytest.raises(CorpusError, match=message):
        read_annotation(path, (100, 50))


def test_damaged_images_are_found_at_conversion(folder):
    (folder / "images" / "7.jpg").write_bytes(picture()[:800])
    with pytest.raises(CorpusError, match=r"7\.jpg: the image is damaged"):
        list(corpus(folder))
    (folder / "images" / "7.jpg").write_bytes(b"BM89a")
    with pytest.raises(CorpusError, match=r"7\.jpg: starts with b'BM89a', which is none of JPEG"):
        list(corpus(folder))


def test_unusable_images_may_be_left_out_and_are_counted(folder):
    (folder / "images" / "7.jpg").write_bytes(picture()[:800])
    (folder / "images" / "10.jpg").unlink()
    reader = corpus(folder, faults="drop")
    assert reader.count() == 2
    assert images(reader) == []
    counts = Counter((item.language, item.reason) for item in left_out(reader))
    assert counts == {
        ("", "missing_image"): 1,
        ("en", "missing_image"): 2,
        ("", "damaged_image"): 1,
        ("en", "damaged_image"): 2,
    }


def test_what_has_no_box_and_what_is_cut_is_counted(folder):
    (folder / "train.txt").write_text("10\n")
    text = ANNOTATION.replace("<ymin>6</ymin>", "<ymin>-1</ymin>")
    text = text.replace("</annotation>", "<object><name>9</name><nobndbox>1</nobndbox></object></annotation>")
    (folder / "Annotations" / "10.xml").write_text(text)
    (folder / "Sentences" / "10.txt").write_text(f"{SENTENCE}\n[/EN#8/other sand] [/EN#9/other air] [/EN#1/people x]\n")
    reader = corpus(folder)
    assert left_out(reader) == [
        LeftOut("f30k", "", "part:scene_without_box", 1),
        LeftOut("f30k", "", "part:object_without_box", 1),
        LeftOut("f30k", "", "part:box_clipped", 1),
        LeftOut("f30k", "en", "part:phrase_without_box", 2),
        LeftOut("f30k", "en", "part:phrase_not_annotated", 1),
    ]
    assert images(reader)[0].regions["1"][1] == Box(10, 0, 20, 10)


def test_boxes_follow_an_image_that_is_made_smaller(folder):
    record = images(corpus(folder, rule=PictureRule(short_side=25)))[0]
    assert (record.width, record.height) == (50, 25)
    assert record.regions["1"] == (Box(0, 0, 50, 25), Box(5, 2.5, 10, 5))


def real_data():
    return Path(os.environ.get("OPTICAL_SCALE_DATA", Path(__file__).parents[4] / "shared" / "data"))


@pytest.mark.realdata
@pytest.mark.skipif(not (real_data() / "flickr30k_entities").is_dir(), reason="no real data beside the checkout")
def test_real_annotations(tmp_path):
    root = real_data()
    folder = root / "flickr30k" / "flickr30k-images"
    with_sentences = {path.stem for path in (root / "flickr30k_entities" / "Sentences").glob("*.txt")}
    ids = sorted(with_sentences & {path.stem for path in folder.glob("*.jpg")})[:40]
    (tmp_path / "split.txt").write_text("\n".join(ids))
    reader = Flickr30kEntitiesCorpus("f", root / "flickr30k_entities", tmp_path / "split.txt", images=folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        records = images(reader)
    assert len(records) == reader.count() == len(ids) > 0
    for record in records:
        assert len(record.captions) == 5
        assert {p.entity for caption in record.captions for p in caption.phrases} <= {*record.regions, "0"}
        for box in (box for boxes in record.regions.values() for box in boxes):
            assert 0 <= box.left < box.right <= record.width
            assert 0 <= box.top < box.bottom <= record.height
