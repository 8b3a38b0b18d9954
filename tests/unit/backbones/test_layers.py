"""Vectors of inner layers, as transformers gives them and as packed encoders do."""

import copy

import pytest
import torch

from optical_scale.backbones.encoder import Encoder, token_states
from optical_scale.backbones.fresh import build_backbone
from optical_scale.batch import PatchBatch, TokenBatch
from optical_scale.errors import ConfigError
from tests.unit.backbones.test_packing import batch, encoder

LAYERS = (0, 1, 2)


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_vectors_are_the_hidden_states_behind_the_head(packed, checkpointed):
    model = encoder("xlm-roberta").train()
    inputs = batch()
    real_BT = inputs["attention_mask"].bool()
    with torch.no_grad():
        hidden = model.backbone(**inputs, output_hidden_states=True).hidden_states
        expected = [model.head(hidden[number])[real_BT] for number in LAYERS]
        output = model(**inputs)[real_BT]
    if packed:
        model.pack()
    if checkpointed:
        model.backbone.gradient_checkpointing_enable({"use_reentrant": False})
    model.expose(LAYERS, "it")
    found = model(**inputs)
    for x_BTD, wanted in zip(found, [output, *expected], strict=True):
        torch.testing.assert_close(x_BTD[real_BT], wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_gradients_of_an_inner_layer_stop_above_it(checkpointed):
    model = encoder("xlm-roberta").train()
    model.expose([1], "it")
    plain = copy.deepcopy(model)
    if checkpointed:
        model.backbone.gradient_checkpointing_enable({"use_reentrant": False})
    for each in (model, plain):
        each(**batch())[1].square().sum().backward()
    gradients, expected = (dict(each.named_parameters()) for each in (model, plain))
    assert all(gradients[name].grad is None for name in gradients if "layer.1." in name)
    learned = [name for name in gradients if expected[name].grad is not None]
    assert any("layer.0." in name for name in learned)
    for name in learned:
        torch.testing.assert_close(gradients[name].grad, expected[name].grad, rtol=1e-5, atol=1e-6)


def test_states_know_the_layers_of_texts_and_of_images():
    inputs = batch()
    text = encoder("bert")
    text.expose([1], "it")
    attention_BT = inputs["attention_mask"].bool()
    tokens = TokenBatch(inputs["input_ids"], attention_BT, attention_BT)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    vision = Encoder(build_backbone(sizes | {"model_type": "vit", "image_size": 16, "patch_size": 8}), 32, 16)
    vision.expose([1], "it")
    pixels = torch.rand(2, 3, 16, 16)
    for found, given in ((text(**inputs), tokens), (vision(pixel_values=pixels), PatchBatch(pixels))):
        states = token_states(found, given, layers=(1,))
        inner = states.at_layer(1)
        assert torch.equal(inner.x_BTD, found[1])
        assert inner.x_BTD.shape == states.x_BTD.shape
        assert not torch.equal(inner.x_BTD, states.x_BTD)
        assert torch.equal(inner.mask_BT, states.mask_BT)
        assert torch.equal(states.part(slice(1, 2)).detach().at_layer(1).x_BTD, found[1][1:2])
        assert states.at_layer(None) is states


def test_a_layer_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match=r"layer 3 of the teacher, which has 2; expected 0 .* to 2"):
        encoder("bert").expose([1, 3], "the teacher")


def test_inner_layers_of_another_width_than_the_output_are_refused():
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = {"model_type": "siglip_text_model", "vocab_size": 50, "max_position_embeddings": 12, "projection_size": 16}
    with pytest.raises(ConfigError, match="32 numbers and those of its output 16; compare outputs only"):
        Encoder(build_backbone(sizes | text), 16, None).expose([1], "the teacher")
