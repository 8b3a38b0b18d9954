import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch.nn import functional
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from optical_scale.backbones.encoder import EncoderContract
from optical_scale.backbones.readout import Readout, pooled_over
from optical_scale.config.backbones import TextBackbone, VisionBackbone
from optical_scale.config.export import ExportConfig
from optical_scale.errors import CheckpointError, ConfigError, ExportError
from optical_scale.export.hf import export_huggingface
from optical_scale.recipes.build_inputs import text_tokenizer
from optical_scale.recipes.build_models import text_encoder, vision_encoder
from optical_scale.recipes.export import export
from optical_scale.training.reference import TEXTS
from tests.unit.export.checkpoints import step_folder


@pytest.fixture(scope="module")
def exported(runs, tmp_path_factory):
    root = tmp_path_factory.mktemp("exported")
    configs = {name: ExportConfig(checkpoint=run, output=root / name, license="mit") for name, run in runs.items()}
    return {name: export(config) for name, config in configs.items()}


def reference(runs, name):
    return load_file(step_folder(runs[name]) / "reference.safetensors")


@pytest.mark.parametrize("name", ["stage0", "stage3", "vision", "clip", "siglip", "dinov2", "clip_text"])
def test_fp32_export_reproduces_the_engine_to_the_last_bit(exported, name):
    # torch's attention, by which SigLIP pools, takes another path where its weights need no gradient.
    assert exported[name].verification.difference <= (1e-6 if name == "siglip" else 0.0)
    assert exported[name].parameters == sum(
        tensor.numel() for file in exported[name].folder.rglob("*.safetensors") for tensor in load_file(file).values()
    )


def test_tokenizer_has_a_class_that_transformers_4_knows_and_nothing_of_the_process_that_saved_it(exported):
    values = json.loads((exported["stage0"].folder / "tokenizer_config.json").read_text())
    assert values["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert not {"backend", "is_local", "local_files_only"} & set(values)


def test_bf16_training_is_compared_within_its_rounding(exported):
    assert 0 < exported["bf16"].verification.difference < exported["bf16"].verification.allowed
    assert not (exported["bf16"].folder / "2_Dense").exists()


def test_transformers_gives_the_trained_token_vectors(exported, runs):
    folder, tensors = exported["stage3"].folder, reference(runs, "stage3")
    model = AutoModel.from_pretrained(folder).eval()
    assert model.dtype == torch.float32
    with torch.no_grad():
        states = model(input_ids=tensors["ids_BT"], attention_mask=tensors["attention_BT"].long()).last_hidden_state
    projected = functional.linear(states, load_file(folder / "2_Dense/model.safetensors")["linear.weight"])
    assert (projected - tensors["x_BTD"])[tensors["attention_BT"]].abs().max() == 0


@pytest.mark.parametrize(("name", "pooled"), [("stage0", "mean"), ("clip_text", "last")])
def test_sentence_transformers_gives_the_normalised_mean_of_the_trained_token_vectors(exported, runs, name, pooled):
    from sentence_transformers import SentenceTransformer

    tensors = reference(runs, name)
    found = SentenceTransformer(str(exported[name].folder), device="cpu").encode(TEXTS, convert_to_tensor=True)
    attention_BT1 = pooled_over(tensors["attention_BT"], Readout(pooled=pooled))[..., None]
    mean = (tensors["x_BTD"] * attention_BT1).sum(1) / attention_BT1.sum(1)
    torch.testing.assert_close(found, functional.normalize(mean), rtol=0, atol=2e-6)


def test_own_loader_reads_the_export_back(exported, runs):
    config = TextBackbone(kind="text", pretrained=exported["stage0"].folder, max_tokens=16, prefix="query: ")
    encoder, tensors = text_encoder(config, text_tokenizer(config)).eval(), reference(runs, "stage0")
    with torch.no_grad():
        x_BTD = encoder(input_ids=tensors["ids_BT"], attention_mask=tensors["attention_BT"].long())
    assert torch.equal(x_BTD[tensors["attention_BT"]], tensors["x_BTD"][tensors["attention_BT"]])


def test_the_rule_for_punctuation_travels_and_another_is_refused(exported, runs):
    config = {"pretrained": exported["stage1"].folder, "max_tokens": 16, "prefix": "query: "}
    masked = TextBackbone(**config, mask_punctuation=True)
    tokenize = text_tokenizer(masked)
    assert text_encoder(masked, tokenize).width == 8
    trained_BT = reference(runs, "stage1")["mask_BT"]
    assert torch.equal(tokenize(TEXTS).mask_BT, trained_BT)
    assert not torch.equal(text_tokenizer(TextBackbone(**config))(TEXTS).mask_BT, trained_BT)
    assert '"mask_punctuation": true' in (exported["stage1"].folder / "README.md").read_text()
    with pytest.raises(ConfigError, match=r"mask_punctuation: .*stage1 was trained with true, found false"):
        text_encoder(TextBackbone(**config), tokenize)
    with pytest.raises(ConfigError, match=r"mask_punctuation: .*stage0 was trained with false, found true"):
        text_encoder(masked.model_copy(update={"pretrained": exported["stage0"].folder}), tokenize)


def test_vision_export_has_processor_and_head_but_no_sentence_transformers_layout(exported):
    folder = exported["vision"].folder
    assert AutoImageProcessor.from_pretrained(folder).size["height"] == 16
    assert not (folder / "modules.json").exists()


@pytest.mark.parametrize("name", ["vision", "clip", "siglip", "dinov2"])
def test_own_loader_and_transformers_read_images_back(exported, runs, name):
    folder, tensors = exported[name].folder, reference(runs, name)
    encoder, _ = vision_encoder(VisionBackbone(kind="vision", pretrained=folder))
    assert EncoderContract.read(folder).pooled == encoder.readout.pooled
    with torch.no_grad():
        found = encoder.eval()(pixel_values=tensors["pixels_BCHW"])
        torch.testing.assert_close(found, tensors["x_BTD"], rtol=0, atol=1e-6 if name == "siglip" else 0)
        model = AutoModel.from_pretrained(folder).eval()(tensors["pixels_BCHW"])
    head = load_file(folder / "2_Dense/model.safetensors")["linear.weight"]
    if name != "vision":  # what the model card says
        torch.testing.assert_close(functional.linear(model.pooler_output, head), tensors["x_BTD"][:, 0])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_small_shards_in_half_precision(runs, tmp_path, dtype):
    checkpoint = step_folder(runs["stage3"])
    report = export_huggingface(checkpoint, tmp_path / "out", dtype=dtype, max_shard_bytes=8000)
    index = json.loads((report.folder / "model.safetensors.index.json").read_text())
    files = sorted(set(index["weight_map"].values()))
    assert len(files) == report.shards > 3
    assert files[0] == f"model-00001-of-{report.shards:05d}.safetensors"
    for file in files:
        with safe_open(report.folder / file, framework="pt") as opened:
            assert opened.metadata() == {"format": "pt"}
    assert {path.name for path in report.folder.glob("*.safetensors")} == set(files)
    assert 0 < report.verification.difference < report.verification.allowed
    assert AutoModel.from_pretrained(report.folder).dtype == getattr(torch, dtype)


def test_contract_and_tokenizer_limits_travel(exported):
    folder = exported["stage0"].folder
    assert EncoderContract.read(folder).head == {"in": 32, "out": 8, "bias": False}
    assert AutoTokenizer.from_pretrained(folder).model_max_length == 16
    settings = json.loads((folder / "config_sentence_transformers.json").read_text())
    assert settings["prompts"][settings["default_prompt_name"]] == "query: "


def test_existing_target_is_kept(runs, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    with pytest.raises(ExportError, match=r"already exists.*Choose another output"):
        export(ExportConfig(checkpoint=runs["stage0"], output=tmp_path / "out"))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "mine").read_text() == "x"


def seal(checkpoint):
    """Record the present files as if training had written them, so that later checks are reached."""
    from optical_scale.runtime.files import sha256

    files = [path for path in checkpoint.rglob("*") if path.is_file() and path.name not in ("files.json", "COMPLETE")]
    facts = {
        str(path.relative_to(checkpoint)): {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in files
    }
    (checkpoint / "files.json").write_text(json.dumps(facts))


def test_other_weights_than_the_reference_leave_no_folder(damaged, tmp_path):
    from safetensors.torch import save_file

    tensors = load_file(damaged / "reference.safetensors")
    tensors["x_BTD"][0, 0, 0] += 1e-3
    save_file(tensors, damaged / "reference.safetensors")
    seal(damaged)
    with pytest.raises(ExportError, match=r"not the trained model: largest difference .* 0.001"):
        export_huggingface(damaged, tmp_path / "out")
    assert not list(tmp_path.glob("*out*"))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"num_hidden_layers": 1}, "unknown to the architecture"), ({"num_hidden_layers": 3}, "missing: encoder.layer.2")],
)
def test_configuration_of_another_network(damaged, tmp_path, change, message):
    config = damaged / "assets" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    seal(damaged)
    with pytest.raises(ExportError, match=message):
        export_huggingface(damaged, tmp_path / "out")
    assert not list(tmp_path.glob("*out*"))


def test_contract_without_the_trained_head(damaged, tmp_path):
    contract = damaged / "assets" / "encoder.json"
    contract.write_text(json.dumps(json.loads(contract.read_text()) | {"head": None}))
    seal(damaged)
    with pytest.raises(CheckpointError, match=r"head has tensors \['weight'\]; expected \[\]"):
        export_huggingface(damaged, tmp_path / "out")
