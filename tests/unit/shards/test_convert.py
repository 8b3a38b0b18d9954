"""The recipe and the two verbs, from files to a verified folder."""

import argparse
import logging
import os
import re
from pathlib import Path

import pytest
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers

from optical_scale.cli import convert as convert_verb
from optical_scale.cli import verify as verify_verb
from optical_scale.config.convert import ConvertConfig
from optical_scale.errors import ConfigError, CorpusError, ShardError
from optical_scale.recipes.convert import convert
from optical_scale.recipes.inspect import inspect
from optical_scale.shards.manifest import Dropped, Source, read_manifest
from optical_scale.shards.reader import ShardFolder

SOURCE = "A dog.\nA cat.\n\nA dog.\nA held out line!\n"
TARGET = "Mbwa.\nPaka.\nBila.\nMbwa.\nMstari.\n"


@pytest.fixture
def corpus(tmp_path):
    (tmp_path / "x.en").write_text(SOURCE)
    (tmp_path / "x.sw").write_text(TARGET)
    (tmp_path / "test.en").write_text("a held-out line\na HELD OUT line\n")
    return tmp_path


def config(folder, **options):
    moses = {"format": "moses", "name": "tiny", "source": "x.en", "target": "x.sw", "language": "sw"}
    return {"output": str(folder / "out"), "folder": str(folder), "corpora": [moses], **options}


def run(*words):
    parser = argparse.ArgumentParser()
    convert_verb.add_arguments(parser)
    return convert_verb.run(parser.parse_args([str(word) for word in words]))


def verify(folder):
    parser = argparse.ArgumentParser()
    verify_verb.add_arguments(parser)
    return verify_verb.run(parser.parse_args([str(folder)]))


def test_every_pair_is_kept_or_counted(corpus, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("optical_scale"), "propagate", True)
    caplog.set_level(logging.INFO, logger="optical_scale")
    manifest = convert(ConvertConfig.model_validate(config(corpus, filters={"held_out": ["test.en"]})))
    assert manifest.counts == {"sw": 2}
    assert set(manifest.dropped) == {Dropped("tiny", "sw", reason, 1) for reason in ("blank", "duplicate", "held_out")}
    assert [pair.target for pair in ShardFolder(corpus / "out").select("sw")] == ["Mbwa.", "Paka."]
    assert "tiny (sw): kept 2, dropped 3, blank 1, duplicate 1, held_out 1" in caplog.text


@pytest.mark.parametrize(
    ("filters", "kept"),
    [
        ({"drop_duplicates": False}, 4),
        ({"min_words": 3}, 0),
        ({"max_words": 2}, 2),
        ({"min_characters": 6, "drop_duplicates": False}, 1),
        ({"max_characters": 6}, 2),
        ({"max_length_ratio": 2.0}, 2),
    ],
)
def test_each_filter_reaches_the_pairs(corpus, filters, kept):
    wanted = ConvertConfig.model_validate(config(corpus, filters=filters))
    if kept == 0:
        with pytest.raises(ShardError, match="no record to write; check the corpus and the filters"):
            convert(wanted)
        assert not (corpus / "out").exists()
    else:
        assert convert(wanted).samples == kept


def test_a_bad_second_corpus_is_found_before_anything_is_written(corpus, monkeypatch):
    (corpus / "y.tl").write_text("Aso.\n")
    options = config(corpus)
    options["corpora"].append({"format": "moses", "name": "y", "source": "x.en", "target": "y.tl", "language": "tl"})
    monkeypatch.setattr("optical_scale.recipes.convert.ShardFiles", None)
    with pytest.raises(CorpusError, match=r"has 5 lines, .* has 1"):
        convert(ConvertConfig.model_validate(options))


def test_existing_output_is_refused_first(corpus):
    (corpus / "out").mkdir()
    (corpus / "out" / "mine").touch()
    (corpus / "x.en").unlink()
    with pytest.raises(ShardError, match="choose another output folder"):
        convert(ConvertConfig.model_validate(config(corpus)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["corpora"].append(c["corpora"][0]), "2 corpora would give keys tiny-sw-"),
        (lambda c: c["corpora"][0].update(name="Tiny.v1"), "pattern"),
        (lambda c: c["corpora"][0].update(format="xlsx"), "flickr30k_entities"),
        (
            lambda c: c["corpora"].append({"format": "flickr30k_entities", "name": "f", "path": "", "split": ""}),
            "not both",
        ),
        (lambda c: c.update(filters={"min_words": 3, "max_words": 2}), "max_words is 2, below min_words = 3"),
        (lambda c: c.update(filters={"max_length_ratio": 0.5}), "max_length_ratio"),
        (lambda c: c.update(corpora=[]), "corpora"),
        (lambda c: c.update(samples_per_shard=0), "samples_per_shard"),
    ],
)
def test_configuration_mistakes(corpus, change, message):
    values = config(corpus)
    change(values)
    with pytest.raises(ValueError, match=message):
        ConvertConfig.model_validate(values)


def test_verb_with_a_configuration_file(corpus, capsys):
    path = corpus / "convert.yaml"
    path.write_text(yaml.safe_dump(config(corpus)))
    assert run(path, "samples_per_shard=1", "--output", corpus / "other") == 0
    assert len(read_manifest(corpus / "other").shards) == 3
    assert verify(corpus / "other") == 0
    assert "3 samples in 3 shards are sound (sw 3)" in capsys.readouterr().out


def test_verb_without_a_configuration_file(corpus):
    side = (corpus / "x.en", corpus / "x.sw")
    both = ("--moses", *side, "--language", "sw", "--moses", *side, "--language", "rw")
    assert run(*both, "--name", "news", "--output", corpus / "out", "filters.drop_duplicates=false") == 0
    assert read_manifest(corpus / "out").counts == {"rw": 4, "sw": 4}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "0 configuration files and 0 corpora"),
        (("a.yaml", "b.yaml"), "2 configuration files"),
        (("a.yaml", "--entities", "f", "--split", "s"), "1 configuration files and 1 corpora"),
        (("--moses", "a", "b"), "1 --moses, 0 --language"),
        (("--moses", "a", "b", "--language", "sw"), "1 --moses, 0 --name"),
        (("--entities", "f"), "without --split"),
        (("--entities", "f", "--moses", "a", "b"), "convert them separately"),
        (("--entities", "f", "--split", "s", "--name", "a", "--name", "b"), "2 --name for one"),
    ],
)
def test_argument_mistakes(words, message):
    with pytest.raises(ConfigError, match=message):
        run(*words)


def test_verify_reports_damage(corpus, capsys):
    convert(ConvertConfig.model_validate(config(corpus)))
    (corpus / "out" / "bitext-sw-000000.tar").write_bytes(b"")
    assert verify(corpus / "out") == 1
    assert "bitext-sw-000000.tar: 0 bytes" in capsys.readouterr().out


def test_every_rule_of_the_configuration_acts_and_is_counted(tmp_path):
    tokenizer = Tokenizer(models.WordLevel({"u": 0}, unk_token="u"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    pairs = {"cafe\u0301": "ቡና", "ውሻ": "dog", "cat": "cat", "It!": "It", "a b c d e": "ሀ", "1": "1", "café": "ቡና"}
    for code, texts in {"en": pairs, "am": pairs.values()}.items():
        (tmp_path / f"x.{code}").write_text("".join(f"{text}\n" for text in texts))
    corpus = {"format": "moses", "name": "x", "source": "x.en", "target": "x.am", "language": "am"}
    filters = {
        "unicode_form": "NFC",
        "scripts": {"am": ["Ethi"]},
        "drop_untranslated": True,
        "max_token_ratio": 3,
        "tokenizer": "tokenizer.json",
    }
    values = {"output": tmp_path / "out", "folder": tmp_path, "corpora": [corpus], "filters": filters}
    manifest = convert(ConvertConfig.model_validate(values))
    assert [record.source for record in ShardFolder(tmp_path / "out").iterate()] == ["café"]
    assert {item.reason: item.records for item in manifest.dropped} == {
        "swapped": 1,
        "script": 2,
        "token_ratio": 1,
        "untranslated": 1,
        "duplicate": 1,
    }
    with pytest.raises(ValueError, match="need each other"):
        ConvertConfig.model_validate(values | {"filters": {"max_token_ratio": 3}})


CHECKOUT = Path(__file__).parents[3]
DATA = Path(os.environ.get("OPTICAL_SCALE_DATA", CHECKOUT.parent / "shared" / "data"))


@pytest.mark.realdata
@pytest.mark.skipif(not (DATA / "multi30k").is_dir(), reason="no real data beside the checkout")
def test_the_shipped_configuration_converts_real_captions(tmp_path):
    path = CHECKOUT / "configs" / "convert" / "multi30k_validation.yaml"
    assert run(path, f"folder={DATA / 'multi30k'}", "--output", tmp_path / "out") == 0
    assert read_manifest(tmp_path / "out").counts == {"cs": 1014, "de": 1014, "fr": 1014}
    assert ShardFolder(tmp_path / "out").read("de", 0).target.startswith("Eine Gruppe von Männern")


def test_the_manifest_says_what_came_from_where_on_which_terms(corpus):
    terms = {"license": "CC-BY-4.0", "origin": "https://example.org/news"}
    options = config(corpus)
    options["corpora"][0] |= terms
    options["corpora"].append(options["corpora"][0] | {"language": "tl"})
    options["corpora"].append(options["corpora"][0] | {"name": "other", "license": "", "origin": ""})
    manifest = convert(ConvertConfig.model_validate(options))
    assert manifest.sources == (
        Source("tiny", {"sw": 3, "tl": 3}, "CC-BY-4.0", "https://example.org/news"),
        Source("other", {"sw": 0}),
    )
    assert read_manifest(corpus / "out") == manifest
    report = inspect(corpus / "out")
    assert "tiny: license CC-BY-4.0, from https://example.org/news" in report
    assert re.search(r"other +sw +pairs +0 +5 +blank 1, duplicate 4", report)
