import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, CLIPVisionConfig

from optical_scale.backbones.encoder import Encoder, from_config
from optical_scale.backbones.flops import Flops


def counted(model, **inputs):
    with FlopCounterMode(display=False) as forward:
        loss = model(**inputs).sum()
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    return forward.get_total_flops(), backward.get_total_flops()


def test_texts_cost_what_torch_counts():
    shape = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 96}
    config = BertConfig(vocab_size=50, attn_implementation="eager", **shape)
    model = Encoder(from_config(config), 64, 32)
    flops = Flops.of(model)
    forward, backward = counted(model, input_ids=torch.ones(2, 24, dtype=torch.int64))
    # Biases and normalisations are counted as weights here, and are one in some fifty.
    assert abs(flops.forward([24, 24]) / forward - 1) < 0.05
    assert abs(flops.backward([24, 24]) / backward - 1) < 0.05
    assert flops.forward([24, 24]) == 2 * flops.forward([24])


def test_frozen_weights_cost_half_of_their_backward():
    config = BertConfig(vocab_size=50, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96)
    model = Encoder(from_config(config), 64, None)
    whole = Flops.of(model)
    model.requires_grad_(False)
    frozen = Flops.of(model)
    assert frozen.trained == 0
    assert frozen.forward([9]) == whole.forward([9])
    assert whole.backward([9]) - frozen.backward([9]) == 2 * whole.weights * 9


def test_images_cost_what_torch_counts():
    config = CLIPVisionConfig(
        hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=96, image_size=24, patch_size=4,
        attn_implementation="eager",
    )  # fmt: skip
    model = Encoder(from_config(config), 64, 32)
    flops = Flops.of(model, patches=37)
    forward, _ = counted(model, pixel_values=torch.ones(2, 3, 24, 24))
    assert abs(flops.forward([flops.patches] * 2) / forward - 1) < 0.05
