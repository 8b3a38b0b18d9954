"""Towers of CLIP, SigLIP, DINOv2 and ViT, against what transformers computes with the same folder."""

import json
import logging

import pytest
import torch
from torch.nn import functional
from transformers import CLIPTextModelWithProjection, CLIPVisionModelWithProjection

from optical_scale.backbones.encoder import model_inputs, token_states
from optical_scale.backbones.pretrained import Pretrained
from optical_scale.backbones.readout import VISION
from optical_scale.config.backbones import TextBackbone, VisionBackbone
from optical_scale.config.run import Student
from optical_scale.errors import ConfigError
from optical_scale.recipes.build_inputs import image_transform, text_tokenizer
from optical_scale.recipes.build_models import student_encoder, text_encoder, vision_encoder
from tests.support.towers import POSITIONS, SIZES, TOWERS, pictures, prepared, write_tower

TEXTS = ["ba do ki", "", "lu " * 40]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("towers")
    return {name: (root / name, write_tower(root / name, name)) for name in TOWERS}


def states_of(folder, **options):
    encoder, prepare = vision_encoder(VisionBackbone(kind="vision", pretrained=folder, **options))
    batch = prepare(pictures())
    with torch.no_grad():
        return token_states(encoder.eval()(**model_inputs(batch)), batch, encoder.readout), prepare


def texts_of(folder, texts=TEXTS):
    config = TextBackbone(pretrained=folder, max_tokens=POSITIONS)
    tokenize = text_tokenizer(config)
    batch, encoder = tokenize(texts), text_encoder(config, tokenize)
    with torch.no_grad():
        return token_states(encoder.eval()(**model_inputs(batch)), batch, encoder.readout), batch


@torch.no_grad()
@pytest.mark.parametrize("name", TOWERS)
def test_vectors_of_images_are_those_of_transformers(folders, name, caplog):
    folder, model = folders[name]
    with caplog.at_level(logging.WARNING):
        states, prepare = states_of(folder)
    assert "read whole" not in caplog.text
    pixels = prepared(folder, pictures())
    torch.testing.assert_close(prepare(pictures()).pixels_BCHW, pixels, rtol=0, atol=1e-6)
    match name:
        case "clip":
            whole = model.get_image_features(pixels).pooler_output
            tower = model.vision_model
            patches = model.visual_projection(tower.post_layernorm(tower(pixels).last_hidden_state))[:, 1:]
        case "siglip":
            whole = model.get_image_features(pixels).pooler_output
            patches = model.vision_model(pixels).last_hidden_state
        case "vit":
            whole = model(pixels).last_hidden_state.mean(1)
            patches = model(pixels).last_hidden_state[:, 1:]
        case _:
            whole = model(pixels).pooler_output
            patches = model(pixels).last_hidden_state[:, 4 if name == "dinov2_with_registers" else 1 :]
    torch.testing.assert_close(states.pooled(), functional.normalize(whole), rtol=0, atol=2e-6)
    assert states.mask_BT.sum(1).tolist() == [prepare.side**2] * 3 == [4] * 3
    assert states.x_BTD.shape[1] == prepare.max_tokens
    torch.testing.assert_close(states.x_BTD[states.mask_BT].view_as(patches), patches, rtol=0, atol=2e-5)


@torch.no_grad()
def test_vectors_of_clip_texts_end_at_the_last_token(folders):
    folder, model = folders["clip"]
    states, batch = texts_of(folder)
    found = model.text_model(input_ids=batch.ids_BT, attention_mask=batch.attention_BT.long()).last_hidden_state
    last = found[torch.arange(3), batch.attention_BT.sum(1) - 1]
    assert batch.attention_BT.sum(1).tolist() == [5, 2, POSITIONS]
    expected = functional.normalize(model.text_projection(last))
    torch.testing.assert_close(states.pooled(), expected, rtol=0, atol=1e-6)
    assert states.mask_BT.sum(1).tolist() == [3, 2, POSITIONS - 2]
    alone, _ = texts_of(folder, TEXTS[:1])  # without padding
    torch.testing.assert_close(alone.pooled(), states.pooled()[:1], rtol=0, atol=1e-6)


@torch.no_grad()
def test_siglip_texts_are_filled_up_and_all_attended_to(folders):
    folder, model = folders["siglip"]
    states, batch = texts_of(folder)
    assert batch.attention_BT.all()
    assert batch.ids_BT.shape == (3, POSITIONS)
    expected = functional.normalize(model.get_text_features(input_ids=batch.ids_BT).pooler_output)
    torch.testing.assert_close(states.pooled(), expected, rtol=0, atol=1e-6)
    assert states.mask_BT.sum(1).tolist() == [3, POSITIONS, POSITIONS - 2]


@torch.no_grad()
@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_a_tower_saved_by_itself_is_the_tower_of_the_whole(folders, tmp_path, name):
    folder, model = folders[name]
    expected, _ = states_of(folder, head=None if name == "siglip" else 32)
    (tmp_path / "vision").mkdir()
    model.vision_model.save_pretrained(tmp_path / "vision")
    processor = (folder / "preprocessor_config.json").read_text()
    (tmp_path / "vision" / "preprocessor_config.json").write_text(processor)
    states, _ = states_of(tmp_path / "vision")
    width = 32  # its own: without the other tower there is no projection
    assert states.x_BTD.shape == expected.x_BTD.shape == (3, 5, width)
    if name == "siglip":
        assert torch.equal(states.x_BTD, expected.x_BTD)


@torch.no_grad()
def test_clip_towers_with_projection_keep_it_as_the_head(folders, tmp_path):
    folder, model = folders["clip"]
    for kind, class_ in (("vision", CLIPVisionModelWithProjection), ("text", CLIPTextModelWithProjection)):
        class_.from_pretrained(folder).save_pretrained(tmp_path)
        pretrained = Pretrained(tmp_path, kind)
        matrix = model.visual_projection.weight if kind == "vision" else model.text_projection.weight
        assert torch.equal(pretrained.projection(), matrix)
    (tmp_path / "preprocessor_config.json").write_text((folder / "preprocessor_config.json").read_text())
    assert states_of(folder)[0].x_BTD.shape[2] == states_of(folder, head=24)[0].x_BTD.shape[2] == 24
    assert states_of(folder, head=8)[0].x_BTD.shape[2] == 8


@pytest.mark.parametrize("name", ["clip", "siglip"])
@pytest.mark.parametrize("kind", ["text", "vision"])
def test_only_the_tower_is_read_and_a_parameter_at_a_time(folders, name, kind):
    folder, model = folders[name]
    pretrained, seen = Pretrained(folder, kind), []

    def store(parameter):
        assert sum(not other.is_meta for other in pretrained.model.parameters()) == len(seen)
        seen.append(parameter.numel())

    pretrained.fill(torch.bfloat16, store)
    tower = model.text_model if kind == "text" else model.vision_model
    assert sum(seen) == sum(parameter.numel() for parameter in tower.parameters())


@pytest.mark.parametrize("model_type", VISION)
def test_every_tower_is_built_from_scratch_and_learns(model_type):
    architecture = SIZES | {"model_type": model_type, "image_size": 16, "patch_size": 8}
    encoder, prepare = vision_encoder(VisionBackbone(kind="vision", architecture=architecture, head=8))
    batch = prepare(pictures())
    states = token_states(encoder(**model_inputs(batch)), batch, encoder.readout)
    assert states.x_BTD.shape == (3, prepare.max_tokens, 8)
    (states.pooled()[:, 0].sum() + states.x_BTD[states.mask_BT].sum()).backward()
    idle = [name for name, parameter in encoder.named_parameters() if parameter.grad is None]
    assert idle in ([], ["backbone.embeddings.mask_token"])


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_adapters_of_a_tower_all_learn(folders, name):
    pytest.importorskip("peft")
    config = Student.model_validate(
        {"backbone": {"kind": "vision", "pretrained": folders[name][0], "head": 8}, "lora": {"rank": 2}}
    )
    encoder, prepare = student_encoder(config, list)
    batch = prepare(pictures())
    encoder(**model_inputs(batch)).sum().backward()
    trained = {n: parameter for n, parameter in encoder.named_parameters() if parameter.requires_grad}
    assert [n for n, parameter in trained.items() if parameter.grad is None] == []
    assert len(trained) == 1 + 2 * 6 * 2 + (4 if name == "siglip" else 0)


def change(folder, target, file, **values):
    """A copy of a folder's small files with other values in one of them."""
    target.mkdir(exist_ok=True)
    for path in folder.glob("*.json"):
        (target / path.name).write_text(path.read_text())
    known = json.loads((target / file).read_text())
    (target / file).write_text(json.dumps(known | values))
    return VisionBackbone(kind="vision", pretrained=target)


def test_mistakes_in_vision_folders(folders, tmp_path):
    folder, file = folders["clip"][0], "preprocessor_config.json"
    refused = {
        "size": ({"size": {"height": 16, "width": 24}, "do_center_crop": False}, r"expected squares of one size"),
        "uncropped": (
            {"do_center_crop": False},
            r"to \{'shortest_edge': 20\} and crops them to nothing",
        ),
        "unresized": ({"do_resize": False}, "resizes images to nothing"),
        "class": ({"image_processor_type": "ConvNextImageProcessor"}, r"by ConvNextImageProcessor; known are ViTImage"),
        "no class": ({"image_processor_type": "MyProcessor"}, r"preprocessor_config.json (cannot be read|prepares)"),
        "large": ({"crop_size": {"height": 18, "width": 18}}, r"reads images of 16 pixels, .* makes 18"),
    }
    for name, (values, message) in refused.items():
        with pytest.raises(ConfigError, match=message):
            image_transform(change(folder, tmp_path / name, file, **values))
    missing = change(folder, tmp_path / "missing", file)
    (tmp_path / "missing" / file).unlink()
    with pytest.raises(ConfigError, match=r"has no preprocessor_config.json, which says how"):
        image_transform(missing)
    for model_type in ("bert", "swin"):
        with pytest.raises(ConfigError, match=rf"is a {model_type}; images are read by vit, clip_vision_model"):
            image_transform(change(folder, tmp_path / model_type, "config.json", model_type=model_type))
    (tmp_path / "bert" / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"is no model folder of transformers"):
        image_transform(VisionBackbone(kind="vision", pretrained=tmp_path / "bert"))


def test_texts_longer_than_the_positions_and_students_that_nothing_loads(folders):
    clip, siglip = (TextBackbone(pretrained=folders[name][0], max_tokens=77) for name in ("clip", "siglip"))
    with pytest.raises(ConfigError, match=r"max_tokens is 77, but clip_text_model has 16 positions; set it to 16 or"):
        text_encoder(clip, text_tokenizer(clip))
    short = siglip.model_copy(update={"max_tokens": 8})
    with pytest.raises(ConfigError, match=r"filled up to all of them; set it to 16$"):
        text_encoder(short, text_tokenizer(short))
    with pytest.raises(ConfigError, match=r"no class for siglip_text_model alone"):
        student_encoder(Student(backbone=siglip), list)
    assert student_encoder(Student(backbone=clip.model_copy(update={"max_tokens": 16})), list)[0].width == 24
