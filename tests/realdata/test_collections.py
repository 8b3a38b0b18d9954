"""The retrieval sets of the folder of real data: all topics and judgements arrive, or are counted."""

import gzip
import json
import os
from pathlib import Path

import pytest

from optical_scale.config.collections import Collection
from optical_scale.corpora.collections import tables
from optical_scale.recipes.convert_collection import convert_collection

DATA = Path(os.environ.get("OPTICAL_SCALE_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif(not (DATA / "xquad-r").is_dir(), reason="no real data beside the checkout"),
]


def convert(tmp_path, documents, languages):
    config = Collection.model_validate({"name": "real", "documents": documents, "languages": languages})
    return convert_collection(config, DATA, tmp_path / "collection")


def test_xquad_r(tmp_path):
    english = {"format": "lareqa", "path": "xquad-r/en.json.gz"}
    tags = [path.name.split(".")[0] for path in sorted((DATA / "xquad-r").glob("*.json.gz"))]
    languages = {
        tag: {"topics": [{"format": "lareqa", "path": f"xquad-r/{tag}.json.gz"}], "judgements": [english]}
        for tag in tags
    }
    folder = convert(tmp_path, [english], languages)
    with gzip.open(DATA / "xquad-r" / "en.json.gz") as file:
        paragraphs = [paragraph for article in json.load(file)["data"] for paragraph in article["paragraphs"]]
    assert len(folder.ids) == sum(len(paragraph["sentences"]) for paragraph in paragraphs)
    assert folder.manifest["topics"] == dict.fromkeys(tags, 1190)
    positions = {name: at for at, name in enumerate(folder.ids)}
    answers = {question["id"]: question["answers"][0]["text"] for p in paragraphs for question in p["qas"]}
    inside = [
        answers[topic].split()[0] in folder.texts[positions[document]]
        for topic, judged in folder.qrels("en").items()
        for document in judged
    ]
    assert sum(inside) / len(inside) > 0.99


def test_afriqa(tmp_path):
    files = {
        tag: sorted((DATA / "afriqa" / "gold_passages" / tag).glob("*.dev.json"))
        for tag in ("bem", "hau", "ibo", "kin", "twi", "zul")
    }
    afriqa = {tag: [{"format": "afriqa", "path": str(path)} for path in paths] for tag, paths in files.items()}
    languages = {tag: {"topics": paths, "judgements": paths} for tag, paths in afriqa.items()}
    folder = convert(tmp_path, [path for paths in afriqa.values() for path in paths], languages)
    for tag, [path] in files.items():
        questions = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        answered = {question["id"] for question in questions if question["context"] and question["question_lang"]}
        assert folder.manifest["topics"][tag] == len(answered)


def test_africlirmatrix_topics_and_judgements():
    root = DATA / "africlirmatrix_topics_qrels_only" / "test"
    files = sorted((root / "queries").iterdir())
    assert len(files) == 15
    for path in files:
        topics = {topic.id for topic in tables.tsv_topics(path)}
        qrels = root / "qrels" / path.name.replace("topics", "qrels").replace(".tsv", ".txt")
        judged = list(tables.judgements(qrels))
        lines = [line for line in qrels.read_text(encoding="utf-8").split("\n") if line.strip()]
        assert len(judged) == len(lines)
        assert {one.topic for one in judged} <= topics
