"""What every corpus format must do; a new format adds one entry to FORMATS."""

import io
import json
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
from PIL import Image
from pydantic import TypeAdapter

from optical_scale.config.corpora import Corpus
from optical_scale.corpora.collections.folder import write_collection
from optical_scale.corpora.collections.parts import Document, Judgement, Topic
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
    languages: tuple[str, ...] = ("sw",)
    complaint: str = ":2: byte 0xff"


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


def photographs(folder, names):
    (folder / "images").mkdir()
    for number, name in enumerate(names):
        Image.new("RGB", (40, 30), (80 * number, 0, 0)).save(folder / "images" / name, "JPEG")


def flickr_captions(folder):
    photographs(folder, [f"{n}.jpg" for n in range(3)])
    rows = [f"{n}.jpg#{k}\tcaption {k}\u2028of {n}" for n in range(3) for k in range(2)]
    (folder / "x.token").write_text("\n".join(rows), encoding="utf-8")
    rows = ["image_name| comment_number| comment", *(f"{n}.jpg| 0| Bild {n}" for n in range(3))]
    (folder / "de.csv").write_text("\n".join(rows))
    captions = {"en": "x.token", "de": "de.csv"}
    return {"format": "flickr_captions", "name": "c", "images": "images", "captions": captions}


def karpathy(folder):
    photographs(folder, [f"{n}.jpg" for n in range(3)])
    rows = [
        {"filename": f"{n}.jpg", "split": "val", "sentences": [{"raw": f"caption {n}", "tokens": [], "sentid": n}]}
        for n in range(3)
    ]
    (folder / "x.json").write_text(json.dumps({"images": rows}, indent=1))
    return {"format": "karpathy", "name": "c", "images": "images", "path": "x.json"}


def caption_lines(folder):
    photographs(folder, [f"{n}.jpg" for n in range(3)])
    (folder / "list.txt").write_text("0.jpg\n1.jpg\n2.jpg\n")
    for code in ("de", "fr"):
        (folder / f"x.{code}").write_text("eins\nzwei\u2028und mehr\ndrei\n", encoding="utf-8")
    captions = {"de": "x.de", "fr": ["x.fr", "x.fr"]}
    return {"format": "caption_lines", "name": "c", "images": "images", "image_list": "list.txt", "captions": captions}


def crossmodal3600(folder):
    photographs(folder, [f"{n:016x}.jpg" for n in range(3)])
    rows = [
        {
            "image/key": f"{n:016x}",
            "image/locale": "en",
            **{code: {"caption": [f"{code} {n}"]} for code in ("en", "sw")},
        }
        for n in range(3)
    ]
    (folder / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    languages = ["en", "sw"]
    return {"format": "crossmodal3600", "name": "c", "images": "images", "path": "x.jsonl", "languages": languages}


PAIRS = [("one", "moja"), ('two\u2028still "two"', "mbili"), ("three", "tatu")]


def opus(folder):
    with zipfile.ZipFile(folder / "x.zip", "w") as archive:
        archive.writestr("README", "read me")
        for side, code in enumerate(("en", "sw")):
            archive.writestr(f"News.en-sw.{code}", "".join(f"{pair[side]}\n" for pair in PAIRS))
    return {"format": "opus", "name": "c", "path": "x.zip", "language": "sw"}


def table(folder):
    rows = ["en\tcredit\tsw", *("\tX\t".join(pair) for pair in PAIRS)]
    (folder / "x.tsv").write_text("\n".join(rows), encoding="utf-8")
    return {"format": "table", "name": "c", "path": "x.tsv", "language": "sw", "source": "en", "target": "sw"}


def jsonl(folder):
    rows = [json.dumps({"translation": {"en": source, "sw": target}}) for source, target in PAIRS]
    (folder / "x.jsonl").write_text("\n".join(rows))
    fields = {"source": "translation.en", "target": "translation.sw"}
    return {"format": "jsonl", "name": "c", "path": "x.jsonl", "language": "sw", **fields}


def lists(folder):
    rows = [{"query": target, "pos": source, "neg": ["no", "never"], "s": [2, 1, 0.5]} for source, target in PAIRS]
    (folder / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return {"format": "lists", "name": "c", "path": "x.jsonl", "language": "sw", "scores": ["s"]}


def tmx(folder):
    units = [
        f'<tu><tuv xml:lang="EN-us"><seg>{source}</seg></tuv>\n<tuv xml:lang="sw"><seg>{target}</seg></tuv></tu>'
        for source, target in PAIRS
    ]
    text = "\n".join(["<tmx><body>", *units, "</body></tmx>"])
    (folder / "x.tmx").write_text(text, encoding="utf-8")
    return {"format": "tmx", "name": "c", "path": "x.tmx", "language": "sw"}


def xliff(folder):
    units = [
        f"<trans-unit><source>{source}</source>\n<target>{target}</target></trans-unit>" for source, target in PAIRS
    ]
    head = '<xliff><file source-language="en-US" target-language="sw">'
    (folder / "x.xlf").write_text("\n".join([head, *units, "</file></xliff>"]), encoding="utf-8")
    return {"format": "xliff", "name": "c", "path": "x.xlf", "language": "sw"}


def bible(folder):
    for side, code in enumerate(("en", "sw")):
        verses = [f'<seg id="b.GEN.1.{n}" type="verse">\n{pair[side]}\n</seg>' for n, pair in enumerate(PAIRS, start=1)]
        (folder / f"{code}.xml").write_text("<cesDoc><text>" + "\n".join(verses) + "</text></cesDoc>")
    return {"format": "bible", "name": "c", "source": "en.xml", "target": "sw.xml", "language": "sw"}


def squad(folder):
    for side, code in enumerate(("en", "sw")):
        paragraph = {
            "context": PAIRS[0][side],
            "qas": [{"id": f"56B{n}", "question": pair[side], "answers": []} for n, pair in enumerate(PAIRS[1:])],
        }
        (folder / f"{code}.json").write_text(json.dumps({"data": [{"paragraphs": [paragraph]}]}, indent=1))
    return {"format": "squad", "name": "c", "source": "en.json", "target": "sw.json", "language": "sw"}


def parquet(folder):
    arrow, files = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [{"translation": {"en": source, "sw": target}, "id": 1} for source, target in PAIRS]
    files.write_table(arrow.Table.from_pylist(rows), folder / "x.parquet")
    fields = {"source": "translation.en", "target": "translation.sw"}
    return {"format": "parquet", "name": "c", "path": "x.parquet", "language": "sw", **fields}


def parallel(folder):
    for code, lines in {"en": 'one\ntwo "2"\nthree\n', "swh": "moja\nmbili\ntatu\n"}.items():
        (folder / f"dev.{code}").write_text(lines)
    return {
        "format": "parallel",
        "name": "c",
        "source": "dev.en",
        "target": "dev.{code}",
        "languages": ["sw"],
        "codes": {"sw": "swh"},
    }


def collection(folder):
    documents = [Document(f"d{at}", source) for at, (source, _) in enumerate(PAIRS)]
    topics = [Topic(f"q{at}", target) for at, (_, target) in enumerate(PAIRS)]
    judged = [Judgement(f"q{at}", f"d{at}", 1) for at in range(3)]
    write_collection(folder / "x", "c", documents, {"sw": topics}, {"sw": judged})
    return {"format": "collection", "name": "c", "path": "x", "language": "sw"}


FORMATS = {
    "moses": Format(moses, "x.sw"),
    "opus": Format(opus, "x.zip", complaint=".*: (not a sound zip|cannot be read)"),
    "table": Format(table, "x.tsv"),
    "jsonl": Format(jsonl, "x.jsonl"),
    "lists": Format(lists, "x.jsonl"),
    "tmx": Format(tmx, "x.tmx", complaint=":2: not well-formed XML"),
    "xliff": Format(xliff, "x.xlf", complaint=":2: not well-formed XML"),
    "bible": Format(bible, "sw.xml", complaint=":2: not well-formed XML"),
    "squad": Format(squad, "sw.json"),
    "parquet": Format(parquet, "x.parquet", complaint=": cannot be read"),
    "parallel": Format(parallel, "dev.swh"),
    "collection": Format(collection, "x/manifest.json", complaint=": cannot be read"),
    "flickr_captions": Format(flickr_captions, "x.token", ("en", "de")),
    "karpathy": Format(karpathy, "x.json", ("en",), complaint=": not JSON"),
    "caption_lines": Format(caption_lines, "x.fr", ("de", "fr")),
    "crossmodal3600": Format(crossmodal3600, "x.jsonl", ("en", "sw")),
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
    with pytest.raises(CorpusError, match=f"{path}{form.complaint}"):
        list(corpus)


def test_a_missing_file_is_found_by_counting(case):
    form, folder, corpus = case
    (folder / form.spoiled).unlink()
    with pytest.raises(CorpusError, match=r"have no file|cannot be read"):
        corpus.count()
