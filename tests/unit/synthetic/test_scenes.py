"""Scenes: layout, brackets, boxes around the drawn pixels, alignment and splits."""

import re
import xml.etree.ElementTree as ElementTree

import pytest
from PIL import Image

from optical_scale.errors import CorpusError
from optical_scale.synthetic.drawing import RGB
from optical_scale.synthetic.grammar import GRAMMARS
from optical_scale.synthetic.scenes import write_scenes

SIZES = {"train": 30, "validation": 8, "test": 8}
PHRASE = re.compile(r"\[/EN#(\d+)/other ([^\[\]]+)\]")
NUMBERS = {"a": 1, "two": 2, "three": 3}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    return folder, write_scenes(folder, seed=11, **SIZES)


def ids(folder):
    return sorted(path.stem for path in (folder / "images").iterdir())


def boxes(folder, image_id):
    """Zero-based inclusive boxes by entity; the files count from one."""
    found = {}
    for entry in ElementTree.parse(folder / "Annotations" / f"{image_id}.xml").iterfind("object"):
        corners = tuple(int(entry.findtext(f"bndbox/{side}")) - 1 for side in ("xmin", "ymin", "xmax", "ymax"))
        found.setdefault(entry.findtext("name"), []).append(corners)
    return found


def test_every_image_has_an_annotation_and_sentences_in_all_languages(scenes):
    folder, counts = scenes
    assert len(ids(folder)) == counts["images"] == 46
    folders = {"Sentences" if language == "en" else f"Sentences_{language}" for language in GRAMMARS}
    assert folders | {"images", "Annotations"} == {path.name for path in folder.iterdir() if path.is_dir()}
    for name in (*folders, "Annotations"):
        assert sorted(path.stem for path in (folder / name).iterdir()) == ids(folder)
    listed = [(folder / name).read_text().split() for name in ("train.txt", "val.txt", "test.txt")]
    assert [len(part) for part in listed] == [30, 8, 8]
    assert sorted(image_id for part in listed for image_id in part) == ids(folder)


def test_translations_mark_the_same_entities_line_by_line(scenes):
    folder, _ = scenes
    for image_id in ids(folder):
        english = (folder / "Sentences" / f"{image_id}.txt").read_text().splitlines()
        assert 1 <= len(english) <= 2
        for line in english:
            assert len(PHRASE.findall(line)) == 2
            assert {entity for entity, _ in PHRASE.findall(line)} == set(boxes(folder, image_id))
        for language in GRAMMARS.keys() - {"en"}:
            other = (folder / f"Sentences_{language}" / f"{image_id}.txt").read_text(encoding="utf-8").splitlines()
            assert [{entity for entity, _ in PHRASE.findall(line)} for line in other] == [
                {entity for entity, _ in PHRASE.findall(line)} for line in english
            ]
            assert not [line for line in other if "[" in PHRASE.sub("", line) or "]" in PHRASE.sub("", line)]


def test_boxes_enclose_exactly_the_objects_that_the_phrase_names(scenes):
    folder, _ = scenes
    for image_id in ids(folder):
        image = Image.open(folder / "images" / f"{image_id}.png")
        assert (image.size, image.mode) == ((64, 64), "RGB")
        found = boxes(folder, image_id)
        for line in (folder / "Sentences" / f"{image_id}.txt").read_text().splitlines():
            for entity, phrase in PHRASE.findall(line):
                number, size, colour, *_ = phrase.split()
                assert len(found[entity]) == NUMBERS[number]
                for left, top, right, bottom in found[entity]:
                    assert 0 <= left < right < 64
                    assert 0 <= top < bottom < 64
                    assert (right - left > 14) == (size == "large")
                    inside = image.crop((left, top, right + 1, bottom + 1))
                    same = {pixel: number for number, pixel in inside.getcolors(64 * 64)}[RGB[colour]]
                    assert same > 0.25 * inside.width * inside.height
        drawn = {
            (x, y) for x in range(64) for y in range(64) if image.getpixel((x, y))[:2] != image.getpixel((x, y))[1:]
        }
        covered = {
            (x, y)
            for rectangles in found.values()
            for left, top, right, bottom in rectangles
            for x in range(left, right + 1)
            for y in range(top, bottom + 1)
        }
        assert drawn <= covered


def test_relations_hold_between_the_boxes(scenes):
    folder, _ = scenes
    checks = {
        "above": lambda a, b: a[3] < b[1],
        "below": lambda a, b: b[3] < a[1],
        "left": lambda a, b: a[2] < b[0],
        "right": lambda a, b: b[2] < a[0],
    }
    seen = set()
    for image_id in ids(folder):
        for line in (folder / "Sentences" / f"{image_id}.txt").read_text().splitlines():
            (first, _), (second, _) = PHRASE.findall(line)
            relation = next(word for word in checks if word in PHRASE.sub("", line))
            seen.add(relation)
            found = boxes(folder, image_id)
            assert all(checks[relation](a, b) for a in found[first] for b in found[second])
    assert seen == set(checks)


def test_captions_are_aligned_distinct_and_disjoint_between_splits(scenes):
    folder, counts = scenes
    english = {}
    for split in SIZES:
        for language in GRAMMARS.keys() - {"en"}:
            sides = [
                (folder / f"captions.{split}.en-{language}.{side}").read_text(encoding="utf-8").splitlines()
                for side in ("en", language)
            ]
            assert len(sides[0]) == len(sides[1]) == counts[f"captions.{split}.en-{language}.en"]
            english[split] = set(sides[0])
            assert len(english[split]) == len(sides[0])
        both = [(folder / f"captions.{split}.en-en.{side}").read_text().splitlines() for side in ("query", "passage")]
        assert all(query != passage for query, passage in zip(*both, strict=True))
        english[split] |= {*both[0], *both[1]}
    assert not english["train"] & (english["validation"] | english["test"])
    assert not english["validation"] & english["test"]


def test_low_resource_languages_get_a_tenth_of_the_training_captions_and_all_of_the_others(scenes):
    _, counts = scenes
    assert counts["captions.train.en-sw.sw"] == -(-counts["captions.train.en-de.de"] // 10)
    assert counts["captions.test.en-sw.sw"] == counts["captions.test.en-de.de"]


def test_same_seed_same_bytes(scenes, tmp_path):
    folder, counts = scenes
    assert write_scenes(tmp_path, seed=11, **SIZES) == counts
    for path in folder.rglob("*.*"):
        assert (tmp_path / path.relative_to(folder)).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("size", [32, 97])
def test_other_sizes_keep_boxes_inside(tmp_path, size):
    write_scenes(tmp_path, seed=1, train=10, validation=0, test=0, size=size)
    for image_id in ids(tmp_path):
        assert Image.open(tmp_path / "images" / f"{image_id}.png").size == (size, size)
        flat = [value for found in boxes(tmp_path, image_id).values() for corners in found for value in corners]
        assert min(flat) >= 0
        assert max(flat) < size


def test_too_many_or_too_small_scenes_are_refused(tmp_path):
    with pytest.raises(CorpusError, match=r"100,000 images asked for, but only [0-9,]+ distinct scenes exist"):
        write_scenes(tmp_path, seed=1, train=100_000, validation=0, test=0)
    with pytest.raises(CorpusError, match="use 32 or more"):
        write_scenes(tmp_path, seed=1, train=1, validation=0, test=0, size=16)
