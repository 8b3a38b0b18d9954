import io

import numpy as np
import pytest
from PIL import Image

from optical_scale.corpora.pictures import UNCHANGED, PictureRule, check_image_name, find_image, read_picture
from optical_scale.errors import CorpusError, ImageError


def stored(tmp_path, image, kind, **options):
    path = tmp_path / f"x.{kind.lower()}"
    image.save(path, kind, **options)
    return path


def noise(size=(60, 40), mode="RGB"):
    return Image.effect_noise(size, 60).convert(mode)


def opened(picture):
    return Image.open(io.BytesIO(picture.content))


@pytest.mark.parametrize(("kind", "mode", "extension"), [("JPEG", "RGB", "jpg"), ("PNG", "L", "png")])
def test_plain_files_keep_their_bytes(tmp_path, kind, mode, extension):
    path = stored(tmp_path, noise(mode=mode), kind)
    picture = read_picture(path, PictureRule(short_side=40))
    assert picture.content == path.read_bytes()
    assert (picture.extension, picture.width, picture.height) == (extension, 60, 40)


@pytest.mark.parametrize(("kind", "mode"), [("JPEG", "CMYK"), ("PNG", "P"), ("PNG", "LA"), ("GIF", "P"), ("PNG", "1")])
def test_other_colours_become_rgb(tmp_path, kind, mode):
    source = Image.new("RGB", (60, 40), (200, 200, 200)).convert(mode)
    picture = read_picture(stored(tmp_path, source, kind), UNCHANGED)
    assert (picture.extension, opened(picture).mode) == ("jpg", "RGB")
    expected = np.asarray(source.convert("RGB"), dtype=float).mean()
    assert abs(np.asarray(opened(picture), dtype=float).mean() - expected) < 3


def test_sixteen_bits_keep_the_upper_eight(tmp_path):
    source = Image.fromarray(np.full((40, 60), 128 * 256 + 17, dtype=np.uint16))
    picture = read_picture(stored(tmp_path, source, "PNG"), UNCHANGED)
    assert np.abs(np.asarray(opened(picture), dtype=int) - 128).max() <= 1


def test_transparency_is_laid_on_white(tmp_path):
    picture = read_picture(stored(tmp_path, Image.new("RGBA", (60, 40), (0, 0, 0, 0)), "PNG"), UNCHANGED)
    assert np.asarray(opened(picture)).min() >= 254


@pytest.mark.parametrize("short_side", [None, 20])
def test_orientation_is_applied(tmp_path, short_side):
    source = Image.new("RGB", (60, 40), "black")
    source.paste("white", (0, 0, 30, 40))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: the left half comes out on top
    path = stored(tmp_path, source, "JPEG", exif=exif)
    picture = read_picture(path, PictureRule(short_side=short_side))
    assert (picture.width, picture.height) == ((40, 60) if short_side is None else (20, 30))
    pixels = np.asarray(opened(picture).convert("L"))
    assert pixels[: len(pixels) // 3].min() > 200
    assert pixels[-len(pixels) // 3 :].max() < 50
    assert not opened(picture).getexif()


def test_first_picture_of_several(tmp_path):
    black, white = Image.new("RGB", (60, 40), "black"), Image.new("RGB", (60, 40), "white")
    for kind in ("GIF", "MPO", "PNG", "WEBP"):
        path = stored(tmp_path, black, kind, save_all=True, append_images=[white])
        picture = read_picture(path, UNCHANGED)
        assert np.asarray(opened(picture)).max() < 5, kind
        assert getattr(opened(picture), "n_frames", 1) == 1


def test_reduced_never_enlarged(tmp_path):
    path = stored(tmp_path, noise((300, 200)), "JPEG")
    small = read_picture(path, PictureRule(short_side=50, quality=80))
    assert (small.width, small.height) == opened(small).size == (75, 50)
    assert read_picture(path, PictureRule(short_side=500)).content == path.read_bytes()
    assert read_picture(path, PictureRule(short_side=50, quality=80)) == small


def test_bombs_are_refused(tmp_path, monkeypatch):
    path = stored(tmp_path, noise(), "PNG")
    with pytest.raises(ImageError, match=r"x\.png: too large an image .*at most 2,399 pixels") as caught:
        read_picture(path, PictureRule(max_pixels=60 * 40 - 1))
    assert caught.value.reason == "image_too_large"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)  # Pillow only warns here
    with pytest.raises(ImageError, match=r"x\.png: too large"):
        read_picture(path, UNCHANGED)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda content: content[: len(content) // 2], "damaged_image"),
        (lambda content: b"II*\0" + content, "unknown_image_format"),
        (lambda content: b"", "unknown_image_format"),
    ],
)
def test_damage_is_named(tmp_path, spoil, reason):
    path = stored(tmp_path, noise(), "JPEG")
    path.write_bytes(spoil(path.read_bytes()))
    for rule in (UNCHANGED, PictureRule(short_side=16)):
        with pytest.raises(ImageError, match=r"x\.jpeg: ") as caught:
            read_picture(path, rule)
        assert caught.value.reason == reason


def test_a_folder_in_place_of_a_file(tmp_path):
    with pytest.raises(ImageError, match="cannot be read"):
        read_picture(tmp_path, UNCHANGED)


def test_files_are_found_by_name_stem_and_folder_of_coco(tmp_path):
    (tmp_path / "train2014").mkdir()
    for name in ("1.jpg", "2.PNG".lower(), "train2014/COCO_train2014_000000000009.jpg"):
        (tmp_path / name).touch()
    assert find_image(tmp_path, "1.jpg") == find_image(tmp_path, "1") == tmp_path / "1.jpg"
    assert find_image(tmp_path, "2.jpg") == tmp_path / "2.png"
    coco = tmp_path / "train2014" / "COCO_train2014_000000000009.jpg"
    assert find_image(tmp_path, "COCO_train2014_000000000009.jpg") == coco
    assert find_image(tmp_path, "train2014/COCO_train2014_000000000009.jpg") == coco
    assert find_image(tmp_path, "3.jpg") is None


@pytest.mark.parametrize(
    "name", ["../a.jpg", "/etc/x.jpg", "a//b", "a/../b", "", ".", "a\0b", "c:\\a", "x" * 201, "a\nb"]
)
def test_names_that_lead_elsewhere_are_refused(name):
    with pytest.raises(CorpusError, match=r"^f:1: .* is no safe name"):
        check_image_name(name, "f:1")
