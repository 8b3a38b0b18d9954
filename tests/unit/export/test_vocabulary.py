import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerFast

from optical_scale.backbones.encoder import EncoderContract
from optical_scale.config.export import ExportConfig
from optical_scale.errors import ConfigError, ExportError
from optical_scale.export.vocabulary import trim_vocabulary
from optical_scale.recipes.export import export
from tests.unit.export.checkpoints import step_folder

KEPT = ["two people walk", "a river at dusk"]


@torch.no_grad()
def test_trimmed_export_gives_the_same_vectors_with_fewer_pieces(runs, tmp_path):
    (tmp_path / "texts").write_text("\n".join(KEPT) + "\n")
    config = {"checkpoint": runs["stage3"]}
    whole = export(ExportConfig(**config, output=tmp_path / "whole"))
    cut = export(ExportConfig(**config, output=tmp_path / "cut", trim_to=[tmp_path / "texts"]))
    assert cut.verification.difference == 0.0
    assert cut.parameters < whole.parameters
    vectors = []
    for report in (whole, cut):
        tokenizer = AutoTokenizer.from_pretrained(report.folder)
        inputs = tokenizer(["query: " + text for text in KEPT], padding=True, truncation=True, return_tensors="pt")
        vectors.append(AutoModel.from_pretrained(report.folder).eval()(**inputs).last_hidden_state)
        assert len(tokenizer) == AutoModel.from_pretrained(report.folder).config.vocab_size
    assert torch.equal(*vectors)


def wordpiece(folder):
    pieces = ["[PAD]", "spare", "[UNK]", "[CLS]", "[SEP]", "play", "##ing", "##ed", "p", "##s", "unused", "walk"]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 4), ("[CLS]", 3))
    roles = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"vocab_size": len(pieces), "pad_token_id": 0, "sep_token_id": 4}))
    return folder


def test_wordpiece_keeps_its_segmentation(runs, tmp_path):
    folder = wordpiece(tmp_path)
    before = AutoTokenizer.from_pretrained(folder)
    tensors = load_file(step_folder(runs["stage3"]) / "reference.safetensors")
    from safetensors.torch import save_file

    save_file(
        {"x_BTD": tensors["x_BTD"], "ids_BT": torch.tensor([[3, 4]]), "attention_BT": torch.ones(1, 2)}, tmp_path / "r"
    )
    new_ids_V = trim_vocabulary(folder, EncoderContract("text", 16), lambda: ["playing walk"], tmp_path / "r")
    after = AutoTokenizer.from_pretrained(folder)
    assert sorted(after.get_vocab()) == ["##ing", "##s", "[CLS]", "[PAD]", "[SEP]", "[UNK]", "p", "play", "walk"]
    for text in ("playing walk", "plays ps"):
        assert after.convert_ids_to_tokens(after(text)["input_ids"]) == before.convert_ids_to_tokens(
            before(text)["input_ids"]
        )
        assert after(text)["input_ids"] == new_ids_V[before(text)["input_ids"]].tolist()
    values = json.loads((folder / "config.json").read_text())
    assert (values["vocab_size"], values["sep_token_id"]) == (9, after.sep_token_id)


def test_other_tokenizers_are_refused_and_nothing_stays(runs, damaged, tmp_path):
    (tmp_path / "texts").write_text("x\n")
    with pytest.raises(ExportError, match=r"found no tokenizer.json, expected Unigram or WordPiece"):
        export(ExportConfig(checkpoint=runs["vision"], output=tmp_path / "out", trim_to=[tmp_path / "texts"]))
    with pytest.raises(ConfigError, match=r"trim_to: .*nowhere is neither"):
        export(ExportConfig(checkpoint=runs["stage0"], output=tmp_path / "out", trim_to=[tmp_path / "nowhere"]))
    shutil.rmtree(tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["texts"]
