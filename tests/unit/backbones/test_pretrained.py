import json
import logging

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, BertConfig, BertForMaskedLM

from optical_scale.backbones.pretrained import Pretrained, load_backbone
from optical_scale.backbones.surgery import keep_layers
from optical_scale.errors import ConfigError

SIZES = {
    "vocab_size": 60,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "max_position_embeddings": 20,
}


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    BertForMaskedLM(BertConfig(**SIZES)).save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def states(model):
    ids_BT = torch.arange(12).view(2, 6)
    with torch.no_grad():
        return model.eval()(input_ids=ids_BT).last_hidden_state


def test_a_tasks_model_gives_its_backbone(folder):
    expected = AutoModelForMaskedLM.from_pretrained(folder).bert
    assert torch.equal(states(load_backbone(folder)), states(expected))


@pytest.mark.parametrize("model_type", ["bert", "deberta-v2", "modernbert", "xlm-roberta", "xlm-roberta-xl"])
def test_every_kind_of_encoder_is_read_in_parts(model_type, tmp_path, caplog):
    """mDeBERTa has relative positions in buckets and a second table of them; ModernBERT has none, and other layers."""
    extra = {"deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 4}}
    config = AutoConfig.for_model(model_type, **SIZES, **extra.get(model_type, {}), pad_token_id=1)
    AutoModelForMaskedLM.from_config(config).save_pretrained(tmp_path)
    expected = states(AutoModel.from_pretrained(tmp_path))
    with caplog.at_level(logging.WARNING):
        assert torch.equal(states(load_backbone(tmp_path)), expected)
    assert "read whole" not in caplog.text


def test_several_files_and_names_of_the_first_bert(folder, tmp_path):
    expected = states(load_backbone(folder))
    tensors = load_file(folder / "model.safetensors")
    old = {name.replace("LayerNorm.weight", "LayerNorm.gamma"): tensor for name, tensor in tensors.items()}
    (folder / "model.safetensors").unlink()
    files = {"a.safetensors": dict(list(old.items())[::2]), "b.safetensors": dict(list(old.items())[1::2])}
    for file, part in files.items():
        save_file(part, folder / file)
    index = {"weight_map": {name: file for file, part in files.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert torch.equal(states(load_backbone(folder)), expected)


def test_every_parameter_is_handed_over_before_the_next_is_read(folder):
    pretrained = Pretrained(folder)
    alive = []

    def store(parameter):
        assert not parameter.is_meta
        assert sum(1 for other in pretrained.model.parameters() if not other.is_meta) == len(alive)
        alive.append(parameter)
        parameter.data = torch.empty(0, dtype=parameter.dtype)

    model = pretrained.fill(torch.bfloat16, store)
    assert len(alive) == len(list(model.parameters()))
    assert all(parameter.dtype == torch.bfloat16 for parameter in model.parameters())


def test_only_kept_layers_are_read(folder):
    whole, pretrained = load_backbone(folder), Pretrained(folder)
    keep_layers(pretrained.model, [2, 0])
    cut = pretrained.fill()
    for ours, theirs in ((0, 2), (1, 0)):
        for found, expected in zip(
            cut.encoder.layer[ours].parameters(), whole.encoder.layer[theirs].parameters(), strict=True
        ):
            assert torch.equal(found, expected)


def test_weights_of_torch_save_are_read_whole_with_a_warning(folder, caplog):
    tensors = load_file(folder / "model.safetensors")
    expected = states(load_backbone(folder))
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    with caplog.at_level(logging.WARNING):
        assert torch.equal(states(load_backbone(folder)), expected)
    assert "is read whole in every process" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda tensors: tensors.pop("bert.encoder.layer.1.output.dense.weight"),
            "1 tensors are missing, first .*layer.1",
        ),
        (
            lambda tensors: tensors.update({"bert.embeddings.word_embeddings.weight": torch.zeros(60, 8)}),
            r"word_embeddings.weight has shape \(60, 8\)",
        ),
        (
            lambda tensors: tensors.update({"bert.embeddings.word_embeddings.weight": torch.zeros(59, 16)}),
            r"word_embeddings.weight has shape \(59, 16\)",
        ),
    ],
)
def test_weights_that_do_not_fit(folder, change, message):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ConfigError, match=rf"weights in {folder} do not load: .*{message}"):
        load_backbone(folder)


def test_truncated_file(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ConfigError, match=f"weights in {folder} do not load"):
        load_backbone(folder)


def test_no_weights_and_no_model(folder, tmp_path):
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="do not load"):
        load_backbone(folder)
    with pytest.raises(ConfigError, match=r"has no config.json; expected a Hugging Face model folder"):
        load_backbone(tmp_path)


def test_equal_to_transformers_on_its_own_folder(folder, tmp_path):
    model = AutoModel.from_pretrained(folder, add_pooling_layer=False)
    model.save_pretrained(tmp_path / "again")
    assert torch.equal(states(load_backbone(tmp_path / "again")), states(model))
