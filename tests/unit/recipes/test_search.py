"""From the layout of BEIR on disk to run files and metrics, through the configuration that users write."""

import json

import pytest
import torch
import yaml

from optical_scale.cli.main import main
from optical_scale.evaluation.run_files import read_run
from optical_scale.shards.reader import ShardFolder
from tests.support.corpus import write_tokenizer
from tests.support.runs import tiny_xlmr

pytest.importorskip("ir_measures")
pytest.importorskip("bm25s")

WORDS = ("a", "the", "dog", "cat", "runs", "sits", "red", "blue", "big", "small", "tree", "man", "plays", "ball")


def text(number):
    return " ".join(WORDS[(number * step + step) % len(WORDS)] for step in (1, 3, 5, 7)) + f" {number}"


@pytest.fixture
def beir(tmp_path):
    """Thirty documents; topics repeat their document in `en` and a part of it in `sw`."""
    source = tmp_path / "beir"
    (source / "qrels").mkdir(parents=True)
    documents = [{"_id": f"d{number}", "title": "", "text": text(number)} for number in range(30)]
    (source / "corpus.jsonl").write_text("".join(json.dumps(fields) + "\n" for fields in documents))
    for language, cut in (("en", 5), ("sw", 3)):
        topics = [{"_id": f"q{n}", "text": " ".join(text(n).split()[-cut:])} for n in range(8)]
        (source / f"queries.{language}.jsonl").write_text("".join(json.dumps(fields) + "\n" for fields in topics))
    rows = "".join(f"q{number}\td{number}\t1\n" for number in range(8))
    (source / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{rows}")
    judgements = [{"path": "qrels/test.tsv"}]
    config = {
        "folder": str(source),
        "output": str(tmp_path / "collection"),
        "collection": {
            "name": "toy",
            "documents": [{"format": "jsonl", "path": "corpus.jsonl"}],
            "languages": {
                tag: {"topics": [{"format": "jsonl", "path": f"queries.{tag}.jsonl"}], "judgements": judgements}
                for tag in ("en", "sw")
            },
        },
    }
    (tmp_path / "convert.yaml").write_text(yaml.safe_dump(config))
    assert main(["convert", str(tmp_path / "convert.yaml")]) == 0
    return tmp_path / "collection"


@pytest.fixture
def encoder(tmp_path):
    pieces = write_tokenizer(tmp_path / "tokenizer")
    return {"architecture": tiny_xlmr(pieces), "tokenizer": str(tmp_path / "tokenizer"), "max_tokens": 24}


def search(tmp_path, name, **fields):
    config = {"output": str(tmp_path / name), "collection": str(tmp_path / "collection"), **fields}
    (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(config))
    status = main(["search", str(tmp_path / f"{name}.yaml")])
    metrics = tmp_path / name / "metrics.json"
    return status, json.loads(metrics.read_text())["metrics"] if metrics.exists() else None


def test_three_methods_write_runs_and_an_index_is_used_again(tmp_path, beir, encoder, capsys):
    torch.manual_seed(0)
    index = str(tmp_path / "index")
    methods = ["bm25", "dense", "late_interaction"]
    status, metrics = search(tmp_path, "first", methods=methods, topics=encoder, index=index, top_k=20)
    assert status == 0
    assert {method: set(rows) for method, rows in metrics.items()} == {method: {"en", "sw"} for method in methods}
    assert metrics["bm25"]["en"]["nDCG@10"] > 0.9
    assert metrics["late_interaction"]["en"]["MRR"] > 0.8  # the topic is the document, but for pieces unknown to it
    run = read_run(tmp_path / "first" / "runs" / "dense.sw.txt")
    assert set(run) == {f"q{number}" for number in range(8)}
    assert all(len(documents) == 20 for documents in run.values())

    torch.manual_seed(0)
    assert search(tmp_path, "again", methods=methods, topics=encoder, index=index, top_k=20) == (0, metrics)
    assert "is used again" in capsys.readouterr().err
    status, _ = search(tmp_path, "other", topics=encoder, index=index, passage_words=3)
    assert status == 2
    assert search(tmp_path, "words", topics=encoder | {"mask_punctuation": True}, index=index) == (2, None)


def test_reranking_keeps_to_the_given_documents(tmp_path, beir, encoder):
    torch.manual_seed(0)
    search(tmp_path, "lexical", methods=["bm25"], languages=["sw"], top_k=4)
    given = tmp_path / "lexical" / "runs" / "bm25.sw.txt"
    status, _ = search(tmp_path, "second", topics=encoder, languages=["sw"], rerank={"sw": str(given)})
    assert status == 0
    found = read_run(tmp_path / "second" / "runs" / "late_interaction.sw.txt")
    assert {topic: {name for name, _ in documents} for topic, documents in read_run(given).items()} == {
        topic: {name for name, _ in documents} for topic, documents in found.items()
    }


def test_topics_given_in_english_are_searched_in_place_of_the_originals(tmp_path, beir):
    english = [{"format": "jsonl", "path": str(tmp_path / "beir" / "queries.en.jsonl")}]
    _, metrics = search(tmp_path, "t", methods=["bm25"], translations={"sw": english})
    assert metrics["bm25"]["sw"] == metrics["bm25"]["en"]
    (tmp_path / "few.tsv").write_text("q1\tthe dog\n")
    few = [{"format": "tsv", "path": str(tmp_path / "few.tsv")}]
    assert search(tmp_path, "u", methods=["bm25"], translations={"sw": few}) == (2, None)


def test_a_local_model_translates_the_topics(tmp_path, beir):
    from transformers import BartConfig, BartForConditionalGeneration, PreTrainedTokenizerFast

    pieces = write_tokenizer(tmp_path / "t")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path / "t")
    tokenizer.add_tokens(["swh_Latn", "eng_Latn"], special_tokens=True)
    tokenizer.save_pretrained(tmp_path / "nmt")
    torch.manual_seed(0)
    small = {f"{side}_{what}": 2 for side in ("encoder", "decoder") for what in ("layers", "attention_heads")}
    widths = {"d_model": 16, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "max_position_embeddings": 256}
    config = BartConfig(vocab_size=pieces + 2, pad_token_id=1, **small, **widths)
    BartForConditionalGeneration(config).save_pretrained(tmp_path / "nmt")
    translator = {"model": str(tmp_path / "nmt"), "source": "swh_Latn", "target": "eng_Latn"}
    status, metrics = search(tmp_path, "n", methods=["bm25"], languages=["sw"], translators={"sw": translator})
    assert status == 0
    assert len((tmp_path / "n" / "translations.sw.tsv").read_text().splitlines()) == 8
    assert set(metrics["bm25"]) == {"sw"}
    unknown = translator | {"target": "xxx_Xxxx"}
    assert search(tmp_path, "m", methods=["bm25"], languages=["sw"], translators={"sw": unknown}) == (2, None)


def test_evaluate_reports_a_collection(tmp_path, beir, encoder):
    config = {
        "output": str(tmp_path / "report"),
        "teacher": encoder,
        "stages": [{"name": "student", "student": encoder}],
        "evaluation": [{"name": "collection", "path": str(beir)}],
        "groups": {"high": ["en"], "low": ["sw"]},
    }
    (tmp_path / "evaluate.yaml").write_text(yaml.safe_dump(config))
    assert main(["evaluate", str(tmp_path / "evaluate.yaml")]) == 0
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    rows = report["stages"][0]["results"]
    assert {(row["evaluation"], row["language"], row["mode"]) for row in rows} == {
        ("collection", language, mode) for language in ("en", "sw") for mode in ("dense", "late_interaction")
    }
    assert {"nDCG@10", "MAP", "MRR", "R@100"} <= set(rows[0]["metrics"])
    assert {gap["metric"] for gap in report["gaps"]} == {"nDCG@10"}


@pytest.mark.parametrize(
    "change",
    [
        {"filters": {"min_words": 2}},
        {"corpora": [{"format": "moses", "name": "a", "source": "a", "target": "b", "language": "sw"}]},
        {"collection": None},
    ],
)
def test_a_conversion_is_of_one_kind(tmp_path, beir, change):
    config = yaml.safe_load((tmp_path / "convert.yaml").read_text()) | {"output": str(tmp_path / "x")} | change
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(config))
    assert main(["convert", str(tmp_path / "wrong.yaml")]) == 2
    assert not (tmp_path / "x").exists()


def test_a_run_mines_negatives_for_the_pairs_of_its_collection(tmp_path, beir, encoder):
    search(tmp_path, "mine", collection=str(beir), topics=encoder, methods=["late_interaction"], top_k=30)
    negatives = {"candidates": str(tmp_path / "mine" / "runs" / "late_interaction.en.txt"), "most": 5}
    corpus = {"format": "collection", "name": "c", "path": str(beir), "language": "en", "negatives": negatives}
    (tmp_path / "pairs.yaml").write_text(yaml.safe_dump({"output": str(tmp_path / "pairs"), "corpora": [corpus]}))
    assert main(["convert", str(tmp_path / "pairs.yaml")]) == 0
    assert main(["verify", str(tmp_path / "pairs")]) == 0
    assert main(["inspect", str(tmp_path / "pairs")]) == 0
    run = read_run(tmp_path / "mine" / "runs" / "late_interaction.en.txt")
    pairs = list(ShardFolder(tmp_path / "pairs").select("en"))
    assert len(pairs) == 8
    for number, pair in enumerate(pairs):
        others = [(document, score) for document, score in run[f"q{number}"] if document != f"d{number}"][:5]
        assert pair.source == text(number)
        assert pair.negatives == tuple(text(int(document[1:])) for document, _ in others)
        assert pair.scores == (dict(run[f"q{number}"])[f"d{number}"], *(score for _, score in others))
