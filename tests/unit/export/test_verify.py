import pytest
import torch
from safetensors.torch import save_file

from optical_scale.backbones.encoder import MASK_RULES
from optical_scale.errors import ExportError
from optical_scale.export.verify import verify
from tests.unit.export.checkpoints import step_folder


def test_reference_without_inputs(tmp_path):
    save_file({"x_BTD": torch.zeros(1, 2, 3)}, tmp_path / "reference.safetensors")
    with pytest.raises(ExportError, match=r"holds \['x_BTD'\]; expected x_BTD with ids_BT"):
        verify(tmp_path, tmp_path / "reference.safetensors", dtype="float32", trained_in="fp32")


def test_vectors_that_are_not_numbers_never_pass(runs, tmp_path):
    import shutil

    from safetensors.torch import load_file

    from optical_scale.export.hf import export_huggingface

    checkpoint = step_folder(runs["stage0"])
    export_huggingface(checkpoint, tmp_path / "out")
    weights = load_file(tmp_path / "out" / "model.safetensors")
    weights["encoder.layer.0.output.dense.bias"][0] = torch.nan
    save_file(weights, tmp_path / "out" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ExportError, match="not the trained model"):
        verify(tmp_path / "out", checkpoint / "reference.safetensors", dtype="float32", trained_in="fp32")
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(ExportError, match="transformers cannot load"):
        verify(tmp_path / "out", checkpoint / "reference.safetensors", dtype="float32", trained_in="fp32")


def test_another_tokenizer_or_limit_than_in_training_is_refused(damaged, tmp_path):
    import json

    from optical_scale.export.hf import export_huggingface
    from tests.unit.export.test_hf import seal

    contract = damaged / "assets" / "encoder.json"
    punctuation = {"mask_rule": MASK_RULES[True]}
    for change, what in (({"prefix": "passage: "}, "ids"), ({"max_tokens": 12}, "ids"), (punctuation, "mask")):
        text = contract.read_text()
        contract.write_text(json.dumps(json.loads(text) | change))
        seal(damaged)
        with pytest.raises(ExportError, match=f"tokenizer gives other {what} than training did, first for"):
            export_huggingface(damaged, tmp_path / "out")
        contract.write_text(text)
    assert not list(tmp_path.glob("*out*"))
