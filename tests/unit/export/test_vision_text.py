import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional
from transformers import AutoImageProcessor, AutoModel

from optical_scale.config.backbones import TextBackbone, VisionBackbone
from optical_scale.config.export import ExportConfig
from optical_scale.errors import ConfigError, ExportError
from optical_scale.recipes.build_inputs import text_tokenizer
from optical_scale.recipes.build_models import text_encoder, vision_encoder
from optical_scale.recipes.export import export
from tests.support.towers import write_tower
from tests.unit.export.checkpoints import step_folder

TEXTS = ["a cat", "the weather in the mountains is getting worse"]


@pytest.fixture(scope="module")
def text(runs, tmp_path_factory):
    return export(ExportConfig(checkpoint=runs["stage0"], output=tmp_path_factory.mktemp("t") / "text")).folder


@pytest.fixture(scope="module")
def both(runs, text, tmp_path_factory):
    output = tmp_path_factory.mktemp("b") / "both"
    return export(ExportConfig(checkpoint=runs["vision"], output=output, layout="vision_text", text=text)).folder


@pytest.fixture(scope="module")
def model(both):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(both), device="cpu")


def test_trained_image_vectors_come_out_of_the_joint_model(both, model, runs):
    tensors = load_file(step_folder(runs["vision"]) / "reference.safetensors")
    features = model({"pixel_values": tensors["pixels_BCHW"], "modality": "image"})
    expected = functional.normalize(tensors["x_BTD"].mean(1))
    assert (features["sentence_embedding"] - expected).abs().max() <= 2e-7
    assert torch.equal(features["token_embeddings"] @ torch.eye(32), features["token_embeddings"])


def test_images_and_texts_are_encoded_as_by_each_tower_alone(both, model, text):
    from sentence_transformers import SentenceTransformer

    alone = SentenceTransformer(str(text), device="cpu")
    assert (model.encode(TEXTS) == alone.encode(TEXTS)).all()
    image = Image.linear_gradient("L").convert("RGB")
    pixels = AutoImageProcessor.from_pretrained(both / "vision")(image, return_tensors="pt")["pixel_values"]
    encoder, _ = vision_encoder(VisionBackbone(kind="vision", pretrained=both / "vision"))
    with torch.no_grad():
        expected = functional.normalize(encoder.eval()(pixel_values=pixels).mean(1))
    found = model.encode([image], convert_to_tensor=True)
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-7)
    assert model.similarity(found, model.encode(TEXTS)).shape == (1, 2)


@pytest.mark.parametrize("name", ["clip", "siglip", "dinov2"])
def test_towers_with_a_vector_for_all_of_an_image(runs, text, tmp_path, name):
    from sentence_transformers import SentenceTransformer

    output = tmp_path / name
    export(ExportConfig(checkpoint=runs[name], output=output, layout="vision_text", text=text))
    tensors = load_file(step_folder(runs[name]) / "reference.safetensors")
    model = SentenceTransformer(str(output), device="cpu")
    features = model({"pixel_values": tensors["pixels_BCHW"], "modality": "image"})
    expected = functional.normalize(tensors["x_BTD"][:, 0])
    assert (features["sentence_embedding"] - expected).abs().max() <= 2e-7
    assert model.encode([Image.linear_gradient("L").convert("RGB")]).shape == (1, 8)


def test_a_text_tower_that_pools_by_the_last_token(runs, tmp_path):
    from sentence_transformers import SentenceTransformer

    text = export(ExportConfig(checkpoint=runs["clip_text"], output=tmp_path / "text")).folder
    both = export(
        ExportConfig(checkpoint=runs["vision"], output=tmp_path / "b", layout="vision_text", text=text)
    ).folder
    alone, joint = (SentenceTransformer(str(folder), device="cpu") for folder in (text, both))
    assert (joint.encode(TEXTS) == alone.encode(TEXTS)).all()


def test_one_tower_of_two_cannot_be_joined(runs, tmp_path):
    write_tower(tmp_path / "clip", "clip")
    with pytest.raises(ExportError, match=r"clip is a model of two towers"):
        export(
            ExportConfig(checkpoint=runs["vision"], output=tmp_path / "o", layout="vision_text", text=tmp_path / "clip")
        )


def test_each_tower_loads_by_itself(both):
    assert AutoModel.from_pretrained(both / "vision").config.model_type == "vit"
    assert AutoModel.from_pretrained(both / "text").config.model_type == "xlm-roberta"
    config = TextBackbone(pretrained=both / "text", max_tokens=16, prefix="query: ")
    assert text_encoder(config, text_tokenizer(config)).width == 8
    assert "SentenceTransformer" in (both / "README.md").read_text()


def test_a_bare_teacher_becomes_the_text_tower(runs, text, tmp_path):
    """A vision student without head of the teacher's width is rare; here the width is made to fit by a Dense."""
    bare = shutil.copytree(text, tmp_path / "bare")
    for name in ("modules.json", "encoder.json"):
        (bare / name).unlink()
    with pytest.raises(ExportError, match=r"have width 32, those of images 8"):
        export(ExportConfig(checkpoint=runs["vision"], output=tmp_path / "o", layout="vision_text", text=bare))
    assert not (tmp_path / "o").exists()


def test_mistakes(runs, both, tmp_path):
    out = {"output": tmp_path / "o", "layout": "vision_text"}
    with pytest.raises(ExportError, match="text encoder; layout vision_text is for images"):
        export(ExportConfig(checkpoint=runs["stage0"], text=both / "text", **out))
    with pytest.raises(ExportError, match=r"holds a vision encoder"):
        export(ExportConfig(checkpoint=runs["vision"], text=both / "vision", **out))
    with pytest.raises(ExportError, match=r"holds no config.json"):
        export(ExportConfig(checkpoint=runs["vision"], text=tmp_path, **out))
    with pytest.raises(ConfigError, match=r"teacher's folder teachers/english is not there"):
        export(ExportConfig(checkpoint=runs["vision"], **out))
    assert list(tmp_path.iterdir()) == []
