import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional
from transformers import AutoConfig, AutoTokenizer

from optical_scale.backbones.encoder import EncoderContract, from_config
from optical_scale.config.export import ExportConfig
from optical_scale.errors import ExportError
from optical_scale.export.onnx import write_onnx
from optical_scale.recipes.export import export
from tests.unit.export.checkpoints import step_folder

onnxruntime = pytest.importorskip("onnxruntime")


def run(folder, **inputs):
    session = onnxruntime.InferenceSession(folder / "onnx" / "model.onnx", providers=["CPUExecutionProvider"])
    return [torch.from_numpy(found) for found in session.run(None, {k: v.numpy() for k, v in inputs.items()})]


@pytest.fixture(scope="module")
def exported(runs, tmp_path_factory):
    root = tmp_path_factory.mktemp("onnx")
    return {
        name: export(ExportConfig(checkpoint=runs[name], output=root / name, onnx=True))
        for name in ("stage3", "vision", "siglip")
    }


@pytest.mark.parametrize("length", [1, 5, 16])
def test_any_number_of_texts_and_tokens(exported, length):
    """XLM-R type, with head and prefix; sentence-transformers gives the same unit vectors."""
    from sentence_transformers import SentenceTransformer

    folder = exported["stage3"].folder
    assert exported["stage3"].onnx.difference <= 2e-6
    inputs = AutoTokenizer.from_pretrained(folder)(
        ["query: a b", "query: some of the words", "query: x"], padding="max_length", max_length=max(3, length),
        truncation=True, return_tensors="pt",
    )  # fmt: skip
    ids_BT, attention_BT = inputs["input_ids"][:, :length], inputs["attention_mask"][:, :length]
    states_BTH, x_BTD, pooled_BD = run(folder, input_ids=ids_BT, attention_mask=attention_BT)
    assert (states_BTH.shape[:2], x_BTD.shape) == ((3, length), (3, length, 8))
    model = SentenceTransformer(str(folder), device="cpu")
    with torch.no_grad():
        inputs = {"input_ids": ids_BT, "attention_mask": attention_BT}
        expected_BTH = model[0](dict(inputs))["token_embeddings"]
        expected_BD = model(inputs)["sentence_embedding"]
    torch.testing.assert_close(states_BTH, expected_BTH, rtol=0, atol=2e-6)
    torch.testing.assert_close(pooled_BD, expected_BD, rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", ["vision", "siglip"])
def test_images(exported, runs, name):
    tensors = load_file(step_folder(runs[name]) / "reference.safetensors")
    _, states_BTD, pooled_BD = run(exported[name].folder, pixel_values=tensors["pixels_BCHW"])
    torch.testing.assert_close(states_BTD, tensors["x_BTD"], rtol=0, atol=2e-6)
    expected_BD = tensors["x_BTD"].mean(1) if name == "vision" else tensors["x_BTD"][:, 0]
    torch.testing.assert_close(pooled_BD, functional.normalize(expected_BD), rtol=0, atol=2e-6)


@pytest.fixture
def bert(tmp_path):
    """A folder of BERT's type, and what the network gives."""
    from safetensors.torch import save_file

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = AutoConfig.for_model("bert", vocab_size=50, max_position_embeddings=24, dtype="float32", **sizes)
    backbone = from_config(config).eval()
    backbone.save_pretrained(tmp_path / "bert")
    EncoderContract("text", 24).write(tmp_path / "bert")
    ids_BT = torch.randint(4, 50, (3, 7))
    attention_BT = torch.ones_like(ids_BT).bool()
    attention_BT[1, 4:] = False
    with torch.no_grad():
        x_BTD = backbone(input_ids=ids_BT, attention_mask=attention_BT.long()).last_hidden_state
    tensors = {"ids_BT": ids_BT, "attention_BT": attention_BT, "x_BTD": x_BTD}
    save_file(tensors, tmp_path / "reference.safetensors")
    return tmp_path / "bert", tmp_path / "reference.safetensors", tensors


def test_bert(bert):
    folder, reference, tensors = bert
    assert write_onnx(folder, reference, trained_in="fp32").difference <= 2e-6
    _, found_BTD, _ = run(folder, input_ids=tensors["ids_BT"][:1, :3], attention_mask=torch.ones(1, 3).long())
    assert found_BTD.shape == (1, 3, 16)


def test_another_graph_than_the_reference(bert):
    from safetensors.torch import save_file

    folder, reference, tensors = bert
    tensors["x_BTD"][0, 0, 0] += 0.01
    save_file(tensors, reference)
    with pytest.raises(ExportError, match=r"graph is not the trained model: token vectors, largest difference .* 0.01"):
        write_onnx(folder, reference, trained_in="fp32")


def test_trimmed_vocabulary_and_half_precision(runs, tmp_path):
    (tmp_path / "texts").write_text("ab\n")
    config = ExportConfig(
        checkpoint=runs["stage0"], output=tmp_path / "out", onnx=True, dtype="bfloat16", trim_to=[tmp_path / "texts"]
    )
    report = export(config)
    assert 0 < report.onnx.difference <= report.onnx.allowed
