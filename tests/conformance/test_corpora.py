"""What every corpus format must do; a new format adds one entry to FORMATS."""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
from PIL import Image
from pydantic import TypeAdapter

from optical_scale.config.corpora import Corpus
from optical_scale.errors import CorpusError
from optical_scale.recipes.build_corpora import build_corpus
from optical_scale.records import TextPair
from optical_scale.shards.reader import ShardFolder
from optical_scale.shards.verify import verify
from optical_scale.shards.writer import write_shards


@dataclass(frozen=True)
class Format:
    """A corpus of three records and one way to spoil line 2 of one of its files."""

    make: Callable[[Path], dict[str, Any]]
    spoiled: str
    languages: tuple[str, ...]


def moses(folder):
    (folder / "x.en").write_text("one\ntwo\u2028still two\nthree\n", encoding="utf-8")
    (folder / "x.sw").write_text("moja\nmbili\ntatu\n", encoding="utf-8")
    return {"format": "moses", "name": "c", "source": "x.en", "target": "x.sw", "language": "sw"}


def flickr30k_entities(folder):
    for name in ("images", "Sentences", "Sentences_de", "Annotations"):
        (folder / name).mkdir()
    for number in range(3):
        buffer = io.BytesIO()
        Image.new("RGB", (40, 30), (80 * number, 0, 0)).save(buffer, "JPEG")
        (folder / "images" / f"{number}.jpg").write_bytes(buffer.getvalue())
        (folder / "Sentences" / f"{number}.txt").write_text("[/EN#1/people A man] .\nA [/EN#1/people man] .\n")
        (folder / "Sentences_de" / f"{number}.txt").write_text("[/EN#1/people Ein Mann] .\n")
        (folder / "Annotations" / f"{number}.xml").write_text(
            "<annotation><size><width>40</width><height>30</height></size><object><name>1</name><bndbox>"
            "<xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>8</ymax></bndbox></object></annotation>"
        )
    (folder / "split.txt").write_text("0\n1\n2\n")
    return {
        "format": "flickr30k_entities",
        "name": "c",
        "path": ".",
        "split": "split.txt",
        "languages": ["en", "de"],
    }


FORMATS = {
    "moses": Format(moses, "x.sw", ("sw",)),
    "flickr30k_entities": Format(flickr30k_entities, "Sentences/1.txt", ("en", "de")),
}


@pytest.fixture(params=FORMATS)
def case(request, tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    corpus = TypeAdapter(Corpus).validate_python(FORMATS[request.param].make(folder))
    return FORMATS[request.param], folder, build_corpus(corpus, folder)


def test_every_format_of_the_configuration_is_tested():
    union = get_args(Corpus)[0]
    assert {member.model_fields["format"].default for member in get_args(union)} == set(FORMATS)


def test_counts_and_names(case):
    form, _, corpus = case
    records = list(corpus)
    assert len(records) == corpus.count() == 3
    assert corpus.name == "c"
    assert corpus.languages == form.languages
    assert {record.corpus for record in records} == {"c"}
    for record in records:
        texts = [record] if isinstance(record, TextPair) else record.captions
        assert {text.language for text in texts} == set(form.languages)


def test_keys_are_safe_unique_and_stable(case):
    corpus = case[2]
    keys = [record.key for record in corpus]
    assert len(set(keys)) == len(keys)
    assert all(re.fullmatch(r"c-[0-9a-z_-]+", key) for key in keys)
    assert [record.key for record in corpus] == keys, "a second pass yields the same"


def test_round_trip_through_shards(case, tmp_path):
    corpus = case[2]
    write_shards(corpus, tmp_path / "shards", 2)
    assert list(ShardFolder(tmp_path / "shards").select()) == list(corpus)
    assert verify(tmp_path / "shards") == []


def test_an_error_names_file_and_line(case):
    form, folder, corpus = case
    path = folder / form.spoiled
    first, _, *rest = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([first, b"\xff", *rest]))
    with pytest.raises(CorpusError, match=rf"{path}:2: byte 0xff"):
        list(corpus)


def test_a_missing_file_is_found_by_counting(case):
    form, folder, corpus = case
    (folder / form.spoiled).unlink()
    with pytest.raises(CorpusError, match=r"have no file|cannot be read"):
        corpus.count()
