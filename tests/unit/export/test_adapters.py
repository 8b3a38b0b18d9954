import json
import shutil

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModel

from optical_scale.config.export import ExportConfig
from optical_scale.engine.consolidate import StoredModel
from optical_scale.errors import CheckpointError
from optical_scale.recipes.export import export
from tests.unit.export.checkpoints import step_folder


@pytest.fixture(scope="module")
def exported(runs, tmp_path_factory):
    root = tmp_path_factory.mktemp("merged")
    names = ("lora0", "lora2", "lora3")
    return {name: export(ExportConfig(checkpoint=runs[name], output=root / name)) for name in names}


@pytest.mark.parametrize("name", ["lora0", "lora3"])
def test_merged_weights_give_the_trained_vectors_within_fp32_rounding(exported, runs, name):
    assert exported[name].verification.difference <= 2e-6
    tensors = load_file(step_folder(runs[name]) / "reference.safetensors")
    model = AutoModel.from_pretrained(exported[name].folder).eval()
    with torch.no_grad():
        states = model(input_ids=tensors["ids_BT"], attention_mask=tensors["attention_BT"].long()).last_hidden_state
    head = load_file(exported[name].folder / "2_Dense" / "model.safetensors")["linear.weight"]
    difference = (states @ head.T - tensors["x_BTD"])[tensors["attention_BT"]].abs().max()
    assert difference <= 2e-6


@pytest.mark.parametrize("name", ["lora0", "lora2", "lora3"])
def test_names_are_those_of_the_base_and_only_adapted_matrices_changed(exported, runs, name):
    assert "- low-rank adapters: rank 4, alpha 32, merged" in (exported[name].folder / "README.md").read_text()
    base = load_file(runs[name] / "base" / "model.safetensors")
    found = load_file(exported[name].folder / "model.safetensors")
    base = {key: value for key, value in base.items() if not key.startswith("pooler.")}
    assert found.keys() == base.keys()
    rounding = {"atol": 1e-2, "rtol": 1e-2} if name == "lora2" else {"atol": 0, "rtol": 0}
    for key, value in base.items():
        adapted = key.endswith(("query.weight", "output.dense.weight"))
        changed = (found[key] - value).abs().max() > 0.05
        assert changed == adapted, key
        if not adapted:
            torch.testing.assert_close(found[key], value, **rounding)


def test_every_frozen_parameter_is_recorded_with_its_hash(runs):
    step = step_folder(runs["lora3"])
    recorded = json.loads((step / "student" / "frozen.json").read_text())
    assert "backbone.embeddings.word_embeddings.weight" in recorded
    assert not [name for name in recorded if "lora_" in name or name.startswith("head")]
    assert {stored.names[0] for stored in StoredModel(step).tensors if stored.digest} == recorded.keys()


@pytest.fixture
def copied(runs, tmp_path):
    return shutil.copytree(step_folder(runs["lora3"]), tmp_path / "step_000002")


def test_frozen_values_that_are_not_the_recorded_ones(copied):
    path = copied / "student" / "frozen.json"
    recorded = json.loads(path.read_text())
    path.write_text(json.dumps(recorded | {"backbone.embeddings.word_embeddings.weight": "0" * 64}))
    with pytest.raises(CheckpointError, match=r"word_embeddings.weight has other values than training"):
        [list(stored.pieces()) for stored in StoredModel(copied).tensors]
    path.write_text(json.dumps(recorded | {"backbone.lost": "0" * 64}))
    with pytest.raises(CheckpointError, match=r"backbone.lost is recorded but not stored"):
        StoredModel(copied)


def test_configuration_without_the_adapters(copied, tmp_path):
    from tests.unit.export.test_hf import seal

    values = yaml.safe_load((copied / "config.yaml").read_text())
    values["student"]["lora"] = None
    (copied / "config.yaml").write_text(yaml.safe_dump(values))
    seal(copied)
    with pytest.raises(CheckpointError, match=r"has low-rank adapters, its config.yaml says none"):
        export(ExportConfig(checkpoint=copied, output=tmp_path / "out"))
    assert not (tmp_path / "out").exists()
