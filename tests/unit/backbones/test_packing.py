import copy

import pytest
import torch

from optical_scale.backbones.encoder import Encoder
from optical_scale.backbones.fresh import build_backbone
from optical_scale.errors import ConfigError

LENGTHS = (7, 1, 12, 4)
TYPES = ("bert", "roberta", "camembert", "xlm-roberta", "xlm-roberta-xl")


def encoder(model_type, **more):
    torch.manual_seed(0)
    shape = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    shape |= {"intermediate_size": 40, "max_position_embeddings": 24, "pad_token_id": 1}
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    backbone = build_backbone({"model_type": model_type} | shape | dropout | more)
    return Encoder(backbone, 32, 16, bias=True)


def batch():
    generator = torch.Generator().manual_seed(1)
    attention_BT = torch.arange(12) < torch.tensor(LENGTHS)[:, None]
    ids_BT = torch.randint(3, 60, attention_BT.shape, generator=generator).where(attention_BT, torch.tensor(1))
    return {"input_ids": ids_BT, "attention_mask": attention_BT.long()}


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("model_type", TYPES)
def test_vectors_and_gradients_are_those_with_padding(model_type, checkpointed):
    padded = encoder(model_type)
    packed = copy.deepcopy(padded)
    packed.pack()
    inputs = batch()
    real_BT = inputs["attention_mask"].bool()
    weights_BTD = torch.randn(*real_BT.shape, 16, generator=torch.Generator().manual_seed(2)) * real_BT[..., None]
    found = []
    for model in (padded, packed):
        if checkpointed:
            model.backbone.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
        x_BTD = model(**inputs)
        (x_BTD * weights_BTD).sum().backward()
        found.append((x_BTD, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}))
    (expected, expected_gradients), (x_BTD, gradients) = found
    torch.testing.assert_close(x_BTD[real_BT], expected[real_BT], rtol=1e-5, atol=1e-6)
    assert not x_BTD[~real_BT].any()
    assert gradients.keys() == expected_gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected_gradients[name], rtol=1e-4, atol=1e-6)


def test_only_real_tokens_pass_through_the_layers():
    model = encoder("xlm-roberta")
    model.pack()
    seen = []
    model.backbone.encoder.layer[0].register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape))
    model(**batch())
    assert seen == [(1, sum(LENGTHS), 32)]


def test_a_network_with_attention_of_another_kind_is_refused():
    model = encoder("modernbert", global_attn_every_n_layers=1)
    with pytest.raises(ConfigError, match=r"engine\.packed: modernbert is not known .* xlm-roberta-xl\. Leave"):
        model.pack()
