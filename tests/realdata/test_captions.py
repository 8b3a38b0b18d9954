"""Image-caption corpora of the folder of real data: every caption is kept or counted, and reads back exactly."""

import gzip
import os
from collections import Counter
from pathlib import Path

import pytest

from optical_scale.config.convert import ConvertConfig
from optical_scale.recipes.convert import convert
from optical_scale.shards.reader import ShardFolder
from optical_scale.shards.verify import verify

DATA = Path(os.environ.get("OPTICAL_SCALE_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
IMAGES = DATA / "flickr30k" / "flickr30k-images"
pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif(not IMAGES.is_dir(), reason="no real data beside the checkout"),
]


def lines(path):
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        return file.read().decode("utf-8").removesuffix("\n").split("\n")


def token_files(folder, files, images):
    """Corpus, and the source's text by language and sentence id."""
    paths = {language: DATA / folder / name for language, name in files.items()}
    rows = ((language, *line.split("\t", 1)) for language, path in paths.items() for line in lines(path))
    texts = {(language, key.replace(".jpg#", "#")): text.strip() for language, key, text in rows}
    return {"format": "flickr_captions", "captions": paths, "images": images}, texts


def flickr30k(tmp_path):
    files = {"en": "results_20130124.token", "de": "results.de.token", "pt-BR": "results.pt.token"}
    return token_files("flickr30k", files, IMAGES)


def flickr8k(tmp_path):
    """The images lie there under the first part of their names."""
    for name in {line.split("#")[0] for line in lines(DATA / "flickr8k" / "Flickr8k.token.txt")}:
        if (path := IMAGES / f"{name.split('_')[0]}.jpg").exists():
            (tmp_path / name).symlink_to(path)
    files = {"en": "Flickr8k.token.txt", "ar": "Flickr8k.arabic.full.txt", "hi": "Flickr8k.hindi.txt"}
    return token_files("flickr8k", files, tmp_path)


def line_files(image_list, captions):
    texts = {}
    ids = [name.removesuffix(".jpg") for name in lines(image_list)]
    for language, paths in captions.items():
        for k, path in enumerate(paths):
            texts |= {(language, f"{name}#{k}"): text.strip() for name, text in zip(ids, lines(path), strict=True)}
    return {"format": "caption_lines", "image_list": image_list, "captions": captions, "images": IMAGES}, texts


def multi30k_task1(tmp_path):
    root = DATA / "multi30k" / "task1"
    captions = {language: [root / "raw" / f"train.{language}.gz"] for language in ("en", "de", "fr", "cs")}
    return line_files(root / "image_splits" / "train.txt", captions)


def multi30k_task2(tmp_path):
    root = DATA / "multi30k" / "task2"
    captions = {language: [root / "raw" / f"train.{k}.{language}.gz" for k in range(1, 6)] for language in ("en", "de")}
    return line_files(root / "image_splits" / "train_images.txt", captions)


@pytest.mark.parametrize("corpus", [flickr30k, flickr8k, multi30k_task1, multi30k_task2])
def test_all_captions_are_kept_or_counted_and_read_back_exactly(corpus, tmp_path):
    (tmp_path / "images").mkdir()
    fields, texts = corpus(tmp_path / "images")
    fields |= {"name": "c", "pictures": {"faults": "drop"}}
    manifest = convert(ConvertConfig.model_validate({"output": tmp_path / "out", "corpora": [fields]}))
    found = Counter(manifest.counts)
    for item in manifest.dropped:
        found[item.language] += item.records
    del found[""]
    assert found == Counter(language for language, _ in texts)
    for record in ShardFolder(tmp_path / "out").iterate():
        assert record.image == (Path(fields["images"]) / f"{record.image_id}.jpg").read_bytes()
        for caption in record.captions:
            assert caption.text == texts[caption.language, caption.id]
    assert verify(tmp_path / "out") == []
