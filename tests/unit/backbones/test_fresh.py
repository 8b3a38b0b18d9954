import pytest
import torch

from optical_scale.backbones.fresh import build_backbone
from tests.support.runs import tiny_xlmr

SIZES = tiny_xlmr(96)


def test_equal_seeds_give_equal_weights_however_they_are_kept():
    kept = []
    models = []
    for dtype, store in ((torch.float32, None), (torch.bfloat16, kept.append)):
        torch.manual_seed(3)
        models.append(build_backbone(SIZES, dtype, store))
    whole, half = (dict(model.named_parameters()) for model in models)
    assert {parameter.dtype for parameter in half.values()} == {torch.bfloat16}
    assert all(bool((whole[name].bfloat16() == half[name]).all()) for name in whole)
    assert {id(parameter) for parameter in kept} == {id(parameter) for parameter in half.values()}


def test_values_follow_the_rule_of_the_architecture():
    torch.manual_seed(0)
    model = build_backbone(SIZES | {"initializer_range": 0.5, "vocab_size": 3000})
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    assert weights["embeddings.word_embeddings.weight"].std().item() == pytest.approx(0.5, rel=0.02)
    assert not weights["embeddings.word_embeddings.weight"][1].any(), "the padding row"
    assert bool((weights["encoder.layer.0.output.LayerNorm.weight"] == 1).all())
    assert not weights["encoder.layer.0.output.dense.bias"].any()


@pytest.mark.parametrize(
    "values",
    [
        {"model_type": "xlm-roberta-xl", "intermediate_size": 64},
        {"model_type": "modernbert", "intermediate_size": 64, "global_attn_every_n_layers": 1},
        {"model_type": "deberta-v2", "intermediate_size": 64, "relative_attention": True, "pos_att_type": ["c2p"]},
        {"model_type": "vit", "image_size": 16, "patch_size": 8},
    ],
    ids=lambda values: values["model_type"],
)
def test_other_architectures_get_all_their_values(values):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    if values["model_type"] != "vit":
        sizes["vocab_size"] = 96
        sizes["pad_token_id"] = 0
    model = build_backbone(sizes | values).eval()
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())
    assert not any(tensor.is_meta for tensor in model.state_dict().values())
