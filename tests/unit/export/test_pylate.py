import json
import os
import string
import subprocess
from pathlib import Path

import pytest
import torch
from transformers import BertTokenizerFast

from optical_scale.backbones.encoder import MASK_RULES, EncoderContract, model_inputs, token_states
from optical_scale.backbones.folders import read_contract
from optical_scale.backbones.tokenizers import TextTokenizer
from optical_scale.config.backbones import TextBackbone
from optical_scale.config.export import ExportConfig
from optical_scale.export.pylate import write_layout
from optical_scale.recipes.build_inputs import text_tokenizer
from optical_scale.recipes.build_models import text_encoder
from optical_scale.recipes.export import export
from tests.unit.export.checkpoints import step_folder

TEXTS = ["the cat, sits? on the mat", "watu wawili", "x"]
ENCODE = """
import json, sys
from pylate import models
model = models.ColBERT(sys.argv[1], device="cpu")
texts = json.loads(sys.argv[2])
vectors = [model.encode(texts, is_query=query, convert_to_numpy=True) for query in (True, False)]
print(json.dumps([[rows.tolist() for rows in side] for side in vectors]))
"""


@pytest.fixture(scope="module", params=["stage3", "stage1", "bf16"])
def folder(request, runs, tmp_path_factory):
    """With a head, with a head and masked punctuation, and without a head."""
    output = tmp_path_factory.mktemp("pylate") / request.param
    return export(ExportConfig(checkpoint=step_folder(runs[request.param]), output=output, layout="pylate")).folder


@torch.no_grad()
def expected(folder):
    """Token vectors of queries (all tokens) and documents (without special tokens), by this project's own loader."""
    masked = EncoderContract.read(folder).mask_punctuation
    config = TextBackbone(pretrained=folder, max_tokens=16, prefix="query: ", mask_punctuation=masked)
    tokenize = text_tokenizer(config)
    batch = tokenize(TEXTS)
    states = token_states(text_encoder(config, tokenize).eval()(**model_inputs(batch)), batch)
    rows = list(zip(states.normalized(), batch.attention_BT, batch.mask_BT, strict=True))
    return [x_TD[attention_T] for x_TD, attention_T, _ in rows], [x_TD[mask_T] for x_TD, _, mask_T in rows]


def test_multi_vector_class_of_sentence_transformers_gives_the_same_vectors(folder):
    library = pytest.importorskip("sentence_transformers", minversion="6.0")
    model = library.MultiVectorEncoder(str(folder), device="cpu")
    queries, documents = expected(folder)
    for ours, theirs in ((queries, model.encode_query(TEXTS)), (documents, model.encode_document(TEXTS))):
        for own_TD, found_TD in zip(ours, theirs, strict=True):
            assert (own_TD - torch.as_tensor(found_TD)).abs().max() <= 1e-6


@pytest.mark.skipif("PYLATE_PYTHON" not in os.environ, reason="PYLATE_PYTHON names no interpreter that has PyLate 1")
def test_pylate_gives_the_same_vectors(folder):
    # PyLate pins older libraries, so it lives in an environment of its own.
    command = [os.environ["PYLATE_PYTHON"], "-c", ENCODE, str(folder), json.dumps(TEXTS)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=300)
    for ours, theirs in zip(expected(folder), json.loads(done.stdout.splitlines()[-1]), strict=True):
        for own_TD, found_TD in zip(ours, theirs, strict=True):
            assert (own_TD - torch.tensor(found_TD)).abs().max() <= 1e-6


def test_layout_is_the_one_pylate_reads(folder):
    modules = json.loads((folder / "modules.json").read_text())
    assert [module["type"] for module in modules] == [
        "sentence_transformers.models.Transformer",
        "pylate.models.Dense.Dense",
    ]
    settings = json.loads((Path(folder) / "config_sentence_transformers.json").read_text())
    assert settings["model_type"] == "ColBERT"
    masked = EncoderContract.read(folder).mask_punctuation
    words = {",", ".", "?", "!", "(", ")", "«", "»", "¿", "।", "。"} if masked else set()
    assert set(settings["skiplist_words"]) == {"</s>", "<s>"} | words
    assert settings["prompts"]["document"] == "query: "
    assert "pylate" in (folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("prefixes", "settings"),
    [
        (("[unused0] ", "[unused1] "), ("[unused0]", "[unused1]", {})),
        (("ask: ", "tell: "), ("", "", {"query": "ask: ", "document": "tell: "})),
    ],
)
def test_markers_of_one_token_are_pylates_own(tmp_path, prefixes, settings):
    names = "[PAD] [UNK] [CLS] [SEP] [MASK] [unused0] [unused1] a b"
    (tmp_path / "vocab.txt").write_text("\n".join(names.split()))
    tokenizer = BertTokenizerFast(str(tmp_path / "vocab.txt"))
    TextTokenizer(tokenizer, 16, *prefixes).save(tmp_path / "model")
    write_layout(tmp_path / "model", EncoderContract("text", 16, prefixes[0], passage_prefix=prefixes[1]), 4)
    found = json.loads((tmp_path / "model" / "config_sentence_transformers.json").read_text())
    assert (found["query_prefix"], found["document_prefix"], found["prompts"]) == settings


def test_masked_punctuation_is_on_the_skip_list_and_read_back_from_pylates_own(tmp_path):
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *string.punctuation, "##.", "।", "a", "##a"]
    (tmp_path / "vocab.txt").write_text("\n".join(names))
    folder = tmp_path / "model"
    BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(folder)
    write_layout(folder, EncoderContract("text", 16, mask_rule=MASK_RULES[True]), 4)
    settings = json.loads((folder / "config_sentence_transformers.json").read_text())
    assert set(settings["skiplist_words"]) == set(names) - {"[PAD]", "[UNK]", "[MASK]", "a", "##a"}
    assert read_contract(folder).mask_punctuation
    theirs = settings | {"skiplist_words": list(string.punctuation[1:])}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(theirs))
    assert not read_contract(folder).mask_punctuation
