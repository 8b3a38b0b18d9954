"""Every bitext of the folder of real data: nothing is lost, and what is kept reads back as the source has it."""

import gzip
import os
from collections import Counter
from pathlib import Path

import pytest

from optical_scale.config.convert import ConvertConfig
from optical_scale.config.corpora import Corpus
from optical_scale.recipes.build_corpora import build_corpus
from optical_scale.recipes.convert import convert
from optical_scale.shards.reader import ShardFolder
from optical_scale.shards.verify import verify

DATA = Path(os.environ.get("OPTICAL_SCALE_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif(not (DATA / "tico19").is_dir(), reason="no real data beside the checkout"),
]


def lines(path):
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        return file.read().decode("utf-8").removesuffix("\n").split("\n")


def moses(*folders):
    """A corpus for every pair of files `{part}.{code}` with English (or French) in each folder."""
    for folder in folders:
        for target in sorted(path for path in folder.iterdir() if path.name != "ORIGIN.txt"):
            stem, code = target.name.rsplit(".", 1)
            for english in ("en", "eng", "fr"):
                source = target.with_name(f"{stem}.{english}")
                if source.exists() and code not in ("en", "eng", "fr", "ids"):
                    name = f"{folder.name}-{stem}".lower().replace(".", "_")
                    yield {"format": "moses", "name": name, "source": source, "target": target, "language": code}
                    break


def multi30k():
    for part in ("train", "val"):
        english = DATA / "multi30k" / "task1" / "raw" / f"{part}.en.gz"
        names = {"zh_hans": "zh-Hans", "pt": "pt-BR"}
        for path in sorted(DATA.glob(f"multi30k*/**/{part}.*.gz")):
            code = path.name.split(".")[1]
            if code != "en" and not code.isdigit():
                language = names.get(code, code)
                yield {"format": "moses", "name": part, "source": english, "target": path, "language": language}


def bible():
    for path in sorted((DATA / "bible").glob("*.tsv.gz")):
        language = path.name.split(".")[0].split("-")[1]
        columns = {"columns": ["verse", "en", "other"], "source": "en", "target": "other"}
        yield {"format": "table", "name": "bible", "path": path, "language": language, **columns}


def tico19():
    languages = sorted(path.name.split("-")[1] for path in (DATA / "tico19").glob("en-*"))
    pattern = str(DATA / "tico19" / "en-{code}" / "tico19.en-{code}")
    yield {
        "format": "parallel",
        "name": "tico19",
        "source": f"{pattern}.en",
        "target": f"{pattern}.{{code}}",
        "languages": languages,
    }


def xquad():
    english = DATA / "xquad" / "xquad.en.json.gz"
    for path in sorted((DATA / "xquad").glob("*.json.gz")):
        if path != english:
            language = path.name.split(".")[1]
            yield {"format": "squad", "name": "xquad", "source": english, "target": path, "language": language}


def folders(pattern):
    return lambda: moses(*sorted(path for path in DATA.glob(pattern) if path.is_dir()))


SETS = {
    "multi30k": multi30k,
    "bible": bible,
    "tico19": tico19,
    "xquad": xquad,
    "lafand-mt": folders("lafand-mt/*"),
    "hornmt": folders("hornmt/*"),
    "loresmt21": folders("loresmt21/*"),
    "manythings": folders("manythings/*"),
    "tatoeba": folders("tatoeba"),
}


@pytest.mark.parametrize("name", SETS)
def test_all_lines_are_kept_or_counted_and_read_back_exactly(name, tmp_path):
    corpora = list(SETS[name]())
    assert corpora, "the folder has another layout than when this test was written"
    config = ConvertConfig.model_validate({"output": tmp_path / "out", "corpora": corpora})
    manifest = convert(config)
    expected = Counter()
    texts = {}
    for corpus in config.corpora:
        for language, source, target in source_texts(corpus):
            assert len(source) == len(target)
            expected[language] += len(source)
            texts.setdefault((corpus.name, language), []).append((source, target))
    dropped = Counter()
    for item in manifest.dropped:
        dropped[item.language] += item.records
    assert {language: manifest.counts.get(language, 0) + dropped[language] for language in expected} == expected
    for record in ShardFolder(tmp_path / "out").iterate():
        [(source, target)] = texts[record.corpus, record.language]
        if name == "xquad":
            assert (record.source, record.target) in set(zip(source, target, strict=True))
        else:
            line = int(record.key[-8:]) - 1
            assert (record.source, record.target) == (source[line].strip(), target[line].strip())
    assert verify(tmp_path / "out") == []


def source_texts(corpus: Corpus):
    """For each language both sides as lists of lines, read without the package where the format has lines."""
    if corpus.format == "moses":
        yield corpus.language, lines(corpus.source), lines(corpus.target)
    elif corpus.format == "parallel":
        for language in corpus.languages:
            yield (
                language,
                lines(Path(corpus.source.replace("{code}", language))),
                lines(Path(corpus.target.replace("{code}", language))),
            )
    elif corpus.format == "table":
        rows = [line.split("\t") for line in lines(corpus.path)]
        yield corpus.language, [row[1] for row in rows], [row[2] for row in rows]
    else:
        pairs = list(build_corpus(corpus, Path()))
        assert len(pairs) == 240 + 1190
        yield corpus.language, [pair.source for pair in pairs], [pair.target for pair in pairs]
